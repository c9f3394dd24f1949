"""Trial folders into MLflow and back: the only package that imports mlflow, and only when it has something to say."""

from engram.benchmarks.sink.sync import Sink as Sink
from engram.benchmarks.sink.sync import SyncReport as SyncReport
from engram.benchmarks.sink.sync import read_store as read_store
