"""What a plan of 10,000 finished trials costs: to look at for the first time, listed, resumed, its status, compared.

Each command is a process of its own, start-up included, by the clock and by the processor, against the 3 seconds that
it may take. A resumed plan starts nothing; what a tracking store that does not answer takes at its end is left out.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from engram.benchmarks.commands.plans import planner_for
from engram.benchmarks.commands.run import plan_suite
from engram.benchmarks.driving.setting import RunSetting
from engram.benchmarks.perf.harness import Row
from engram.benchmarks.planning.plan import Trial
from engram.benchmarks.planning.suite import check_suite
from engram.benchmarks.plugin import discover
from engram.benchmarks.records.lines import LEDGER, Line, digest, encoded
from engram.benchmarks.records.stored import write_json

MAY_TAKE = 3.0
"""Seconds."""
ROUNDS = 3
SETTLING = 2.5
"""Seconds after which what a finished trial says is remembered (`engram.benchmarks.records.memory`)."""
SUITE = """experiment = "backbone.train"
name = "plans"
seeds = 100
[options]
dataset = "digits"
backbone = "mlp"
[grid]
lr = [0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008, 0.009, 0.01]
weight_decay = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1]
"""
TIMED = """
import sys, time
from engram.benchmarks.cli import main
from engram.benchmarks.driving.feeder import Feeder
finish, apart = Feeder.finish, [0.0, 0.0]
def timed(*args):
    began = time.perf_counter(), time.process_time()
    said = finish(*args)
    apart[:] = time.perf_counter() - began[0], time.process_time() - began[1]
    return said
Feeder.finish = timed
code = main(sys.argv[2:])
clock, processor = time.time() - float(sys.argv[1]) - apart[0], time.process_time() - apart[1]
print(f"\\n{clock} {processor}", flush=True)
sys.exit(code)
"""
COMMANDS = {
    "looked at for the first time": ("status", "plans"),
    "listed": ("sweep", "plans.toml", "--dry-run"),
    "resumed": ("sweep", "plans.toml", "--tracking-uri", "http://127.0.0.1:9"),
    "status": ("status", "plans"),
    "compared": ("compare", "plans"),
}


def build(folder: Path) -> int:
    """Plan the suite and write what finished trials leave; how many there are."""
    (folder / "plans.toml").write_text(SUITE)
    how = RunSetting(out=folder / "runs", data_root=folder, argv=["engram", "sweep", "plans.toml"])
    registry = discover()
    suite = check_suite(tomllib.loads(SUITE), SUITE, folder / "plans.toml", registry)
    trials, plan = plan_suite(suite, planner_for(registry, how))
    (how.out / "sweeps" / suite.name).mkdir(parents=True)
    write_json(how.out / "sweeps" / suite.name / "plan.json", plan)
    for trial in trials:
        _finish(trial)
    time.sleep(SETTLING)
    return len(trials)


def _finish(trial: Trial) -> None:
    """A configuration, a ledger, facts, and a result with a table and a figure of ten epochs."""
    trial.folder.mkdir(parents=True)
    write_json(trial.folder / "config.json", trial.stored())
    epochs, seed = range(1, 11), trial.config["seed"]
    accuracy = 0.9 + trial.config["lr"] + 0.0001 * (seed * 7919 % 100)
    said = itertools.product(epochs, ("train/loss", "validation/accuracy"))
    lines = [Line(1000 * epoch, epoch, name, 1 / epoch) for epoch, name in said]
    ledger = trial.folder / LEDGER
    ledger.write_bytes(b"".join(encoded(line, number) for number, line in enumerate(lines)))
    curve = [[epoch, 1 / epoch] for epoch in epochs]
    figure = {"title": "loss", "x_label": "epoch", "y_label": "loss", "series": {"train": curve, "test": curve}}
    facts = {"parameters": 85002, "data_sha256": "0" * 64}
    write_json(trial.folder / "provenance.json", {"facts": facts, "argv": ["engram"], "python": "3.11"})
    result = {
        "experiment": trial.experiment,
        "trial": trial.id,
        "config": dict(trial.config),
        "metrics": {"test/accuracy": accuracy, "test/loss": 0.1, "train/loss": 0.1, "parameters": 85002.0},
        "tables": {"epochs": [{"epoch": epoch, "train/loss": 1 / epoch} for epoch in epochs]},
        "figures": {"loss": figure},
        "artifacts": {},
        "seconds": 1.0,
        "ledger": digest(ledger),
        "content": trial.id,
    }
    write_json(trial.folder / "result.json", result)


def took(folder: Path, words: tuple[str, ...]) -> tuple[float, float]:
    """Seconds of a command: by the clock, of the processor."""
    env = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-c", TIMED, str(time.time()), *words, "--out", "runs"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env, cwd=folder)
    clock, processor = map(float, done.stdout.split()[-2:])
    return clock, processor


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory() as place:
        count = build(Path(place))
        rows = []
        for name, words in COMMANDS.items():
            rounds = 1 if "first" in name else ROUNDS
            times = zip(*(took(Path(place), words) for _ in range(rounds)), strict=True)
            for which, each in zip(("by the clock", "of the processor"), times, strict=True):
                rows.append(
                    Row(
                        name=f"plans/{count:,} trials {name}, {which}",
                        ours=statistics.median(each),
                        peer=MAY_TAKE,
                        peer_name="what it may take",
                        unit="s",
                        higher_is_better=False,
                        n=rounds,
                    )
                )
        return rows
