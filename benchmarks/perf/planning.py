"""What planning costs: a suite of many seeds against the ten thousand trials in three seconds that it may take.

Processor time, for planning is all Python; nothing is fetched or written. A conversion plans its training as well.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from engram.backbone.registry import Registry
from engram.benchmarks.perf.harness import Row
from engram.benchmarks.planning.plan import Planner
from engram.benchmarks.planning.suite import check_suite
from engram.benchmarks.records.identity import DataSets

ROUNDS = 5
TRIALS = 500
ALLOWED = 0.3
"""Milliseconds a trial."""
SUITES: dict[str, dict[str, Any]] = {
    "backbone.train": {"backbone": "mlp", "backbone.width": 0.5, "lr": 0.1},
    "snn.convert": {"backbone": "mlp", "steps": 8},
    "continual.stream": {"strategies": ["si", "er"], "strategies.si.c": 0.1},
}


def milliseconds(experiment: str, options: dict[str, Any], registry: Registry) -> float:
    """Of one trial of a suite, from its values to its identity."""
    with tempfile.TemporaryDirectory() as out:
        began = time.process_time()
        values = {"experiment": experiment, "name": "planning", "seeds": TRIALS, "options": options}
        suite = check_suite(values, "", Path("planning.toml"), registry)
        planner = Planner(registry, Path(out), DataSets(registry, Path(out)))
        for point in suite.points:
            planner.add(experiment, point.given)
        return 1000 * (time.process_time() - began) / len(planner.trials)


def measure() -> list[Row]:
    registry = Registry.discover()
    rows = []
    for experiment, options in SUITES.items():
        took = [milliseconds(experiment, options, registry) for _ in range(1 + ROUNDS)][1:]
        ours = statistics.median(took)
        peer = {"peer": ALLOWED, "peer_name": "what is allowed", "unit": "ms", "higher_is_better": False, "n": ROUNDS}
        rows.append(Row(name=f"planning/a trial of {experiment}", ours=ours, **peer))
    return rows
