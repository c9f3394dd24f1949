"""Searches as users run them: from the command line, and killed in the middle."""

from __future__ import annotations

import json
import signal
from dataclasses import replace

import pytest

from engram.benchmarks.records.search import Clocked, read_events
from engram.benchmarks.records.trials import Record

SUITE = """
experiment = "counting.count"
seeds = 2
[options]
steps = 20
[search]
method = "random"
objective = "total"
trials = 6
[search.space]
stride = { low = 0.5, high = 20.0, log = true }
dataset.colour = ["grey", "white"]
"""
HALVING = SUITE.replace('"random"', '"halving"').replace("steps = 20", "steps = 20\npause = 0.05")


@pytest.fixture
def suite(engram):
    def write(text: str) -> str:
        (engram.cwd / "count.toml").write_text(text)
        return "count.toml"

    return write


def told(out):
    """All that the record says but when."""
    events, _, lost = read_events(out / "sweeps" / "count" / "search.jsonl")
    assert not lost
    return [replace(event, seconds=0.0, joules=0.0) for event in events if not isinstance(event, Clocked)]


def test_a_search_from_the_command_line(here, suite):
    plan = here("sweep", suite(SUITE), "--dry-run", "--json")
    assert plan.code == 0
    assert not (here.cwd / "runs").exists()
    planned = [trial["trial"] for trial in plan.json["trials"]]
    assert "the first 3 proposals, with every seed; more are drawn as these" in plan.err
    assert "stride: 0.5 to 20.0 by ratio" in plan.err
    done = here("sweep", "count.toml", "--json")
    assert done.code == 0, done.err
    assert [trial["trial"] for trial in done.json["trials"]] == planned
    means = [sum(each["metrics"]["total"] for each in done.json["trials"][n : n + 2]) / 2 for n in (0, 2, 4)]
    (chosen,) = done.json["chosen"]
    assert chosen["total"] == max(means)
    again = here("sweep", "count.toml")
    assert again.code == 0
    assert "the search ends: its 6 trials are done" in again.err
    assert "the best by total: means over 2 seeds" in again.out
    events = told(here.cwd / "runs")
    here("sweep", "count.toml")
    assert told(here.cwd / "runs") == events
    status = here("status", "--json").json["sweeps"]
    assert (status[0]["trials"], status[0]["done"]) == (6, 6)
    compared = here("compare", "count", "--json").json
    assert (compared["metric"], len(compared["tables"]["groups"])) == ("total", 3)
    report = here("report", "count")
    assert (
        "A search of counting.count on pebbles by total: 3 proposals, 6 trials."
        in (here.cwd / report.out.strip()).read_text()
    )
    held = json.loads((here.cwd / "runs/sweeps/count/plan.json").read_text())
    assert held["search"] == {"method": "random", "objectives": ["total"]}
    other = here("sweep", suite(SUITE.replace("seeds = 2", "seeds = 3")))
    assert (other.code, len(other.complaints)) == (2, 1)
    assert "must be what the search 'count' was begun with; got another seeds" in other.err


def test_a_search_whose_driver_is_killed_goes_on(engram, here, suite, wait_for, workers_in, tmp_path_factory):
    whole = tmp_path_factory.mktemp("whole")
    words = ("sweep", suite(HALVING), "--json", "--out")
    undisturbed = here(*words, whole)
    assert undisturbed.code == 0, undisturbed.err
    out = engram.cwd / "runs"
    for wanted in (1, 2, 4):
        driver = engram.start(*words, out)
        record = out / "sweeps" / "count" / "search.jsonl"
        wait_for(
            lambda wanted=wanted, record=record: record.exists() and record.read_bytes().count(b'"tell"') >= wanted
        )
        driver.send_signal(signal.SIGKILL)
        driver.communicate()
        wait_for(lambda: not workers_in(out))
    done = here(*words, out)
    assert done.code == 0, done.err
    assert told(out) == told(whole)
    assert [each["metrics"] for each in done.json["trials"]] == [each["metrics"] for each in undisturbed.json["trials"]]
    assert all(Record(out / "trials" / each["trial"]).status in ("done", "pruned") for each in done.json["trials"])
