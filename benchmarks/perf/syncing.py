"""Telling MLflow: measurements a second into SQLite against MLflow's own ``log_batch``, and memory of a million.

Both read the same ledgers; MLflow is handed 1,000 at a time, the most it takes. Each is a process of its own.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from engram.benchmarks.perf.harness import Row, apart, resident
from engram.benchmarks.records.lines import Line, encoded
from engram.benchmarks.sink import Sink

FEW, MANY = 100_000, 1_000_000
TRIALS, NAMES = 10, 5
BATCH = 1000


def _ledgers(out: Path, rows: int) -> list[str]:
    """Trials that were broken off after so many measurements in all."""
    trials = [f"{number:016x}" for number in range(TRIALS)]
    for trial in trials:
        folder = out / "trials" / trial
        folder.mkdir(parents=True)
        about = {"experiment": "backbone.train", "version": 1, "config": {"dataset": "digits"}, "inputs": {}}
        (folder / "config.json").write_text(json.dumps(about))
        (folder / "provenance.json").write_text("{}")
        with (folder / "metrics.jsonl").open("wb") as ledger:
            for n in range(rows // TRIALS):
                line = Line(1_700_000_000_000 + n, n // NAMES, f"train/{n % NAMES}", n / 7)
                ledger.write(encoded(line, n))
    return trials


def ours(rows: int) -> list[float]:
    """[seconds, peak in MB]"""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        trials = _ledgers(out, rows)
        sink = Sink(out, None)
        assert sink.sync([], None).ok  # MLflow makes its tables
        began = time.perf_counter()
        assert sink.sync(trials, None, now=True).trials == TRIALS
        return [time.perf_counter() - began, resident("VmHWM")]


def peer(rows: int) -> list[float]:
    """[seconds, peak in MB] of MLflow's own client."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        trials = _ledgers(out, rows)
        client = MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
        experiment = client.create_experiment("peer")
        began = time.perf_counter()
        for trial in trials:
            run = client.create_run(experiment).info.run_id
            lines = map(json.loads, (out / "trials" / trial / "metrics.jsonl").open())
            metrics = [Metric(line["name"], line["value"], line["t"], line["step"]) for line in lines]
            for first in range(0, len(metrics), BATCH):
                client.log_batch(run, metrics[first : first + BATCH])
        return [time.perf_counter() - began, resident("VmHWM")]


def measure() -> list[Row]:
    few, many, theirs = apart(ours, FEW), apart(ours, MANY), apart(peer, FEW)
    rate = {"unit": "1/s", "higher_is_better": True, "n": 1}
    return [
        Row(
            name=f"syncing/measurements, {FEW:,}",
            ours=FEW / few[0],
            peer=FEW / theirs[0],
            peer_name="MLflow's log_batch",
            **rate,
        ),
        Row(
            name=f"syncing/measurements, {MANY:,}",
            ours=MANY / many[0],
            peer=FEW / theirs[0],
            peer_name=f"MLflow's log_batch of {FEW:,}",
            **rate,
        ),
        Row(
            name=f"syncing/peak memory, {MANY:,}",
            ours=many[1],
            peer=few[1],
            peer_name=f"ours, {FEW:,}",
            unit="MB",
            higher_is_better=False,
            n=1,
        ),
    ]
