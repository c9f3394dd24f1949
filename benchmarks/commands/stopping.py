"""``engram stop SWEEP``: ask the driver of a sweep, wherever it runs, to come to an end."""

from __future__ import annotations

from engram.backbone.errors import must
from engram.benchmarks.commands.flags import Stopping
from engram.benchmarks.driving.orders import DRAIN, STOP, give
from engram.benchmarks.given import Given
from engram.benchmarks.records.layout import sweep_dir
from engram.benchmarks.records.trials import alive, read_sweep
from engram.benchmarks.saying import say


def stop(given: Given[Stopping]) -> int:
    """Leave the order in the sweep's folder; the driver looks there twice a second."""
    (name,), flags = given.words, given.flags
    read_sweep(flags.out, name)  # or it is none
    folder = sweep_dir(flags.out, name)
    if not alive(folder):
        raise must(f"sweep {name}", "one that is running", "none that is", f"See: engram status --out {flags.out}")
    give(folder, DRAIN if flags.drain else STOP)
    what = "lets running trials come to their end" if flags.drain else "has running trials save a checkpoint"
    say(f"sweep {name} {what} and starts no more; the same command goes on with it later")
    return 0
