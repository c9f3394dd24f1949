"""Clusters on this machine, which are scripts of their own and no tests, and the sweep that is run on them."""

from __future__ import annotations

import json

import pytest

from engram.benchmarks.records.trials import Record, trial_names

collect_ignore = ["slurm_nodes.py", "ray_nodes.py"]
SUITE = """
experiment = "counting.count"
name = "small"
seeds = {seeds}
[options]
pause = {pause}
steps = {steps}
[grid]
stride = [1.0, 2.0]
"""


@pytest.fixture
def small(engram, put_store):
    """Write a suite of two trials for each seed, the second with totals of twice its steps; the words of its sweep."""
    put_store(engram.cwd / "runs")

    def write(*more, pause=0.0, steps=5, seeds=1):
        (engram.cwd / "small.toml").write_text(SUITE.format(pause=pause, steps=steps, seeds=seeds))
        return ("sweep", "small.toml", "--json", "--out", engram.cwd / "runs", *more)

    return write


@pytest.fixture(scope="session")
def begun():
    """The trials of an output folder that have logged something."""
    return lambda out: [trial for trial in trial_names(out) if Record(out / "trials" / trial).ledger()]


@pytest.fixture(scope="session")
def logs():
    """The logs of all trials of an output folder."""
    return lambda out: [(out / "trials" / trial / "log.txt").read_text() for trial in trial_names(out)]


@pytest.fixture(scope="session")
def totals():
    """What the trials of a sweep have counted to, from its standard output."""

    return lambda out: [each["metrics"].get("total") for each in json.loads(out)["trials"]]
