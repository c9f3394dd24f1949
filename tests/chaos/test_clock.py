"""A clock that goes back between two attempts of a trial: nothing is lost, doubled or taken for news."""

from __future__ import annotations

import time

import pytest

from engram.backbone.registry import Registry
from engram.benchmarks.driving.setting import RunSetting
from engram.benchmarks.driving.writing import write_trial
from engram.benchmarks.planning.plan import Planner
from engram.benchmarks.records.identity import DataSets
from engram.benchmarks.records.pace import Progress
from engram.benchmarks.records.trials import Record
from engram.benchmarks.worker import provenance
from engram.benchmarks.worker.stopping import STOPPED, Stop
from engram.benchmarks.worker.trial import work

HOUR = 3600


@pytest.fixture
def plan(tmp_path, with_plugins, monkeypatch):
    monkeypatch.setattr(provenance, "git", lambda code: {})

    def count(out, **options):
        registry = Registry.discover()
        trial = Planner(registry, tmp_path / out, DataSets(registry, tmp_path)).add("counting.count", options)
        write_trial(trial, RunSetting(out=tmp_path / out, data_root=tmp_path, argv=["test"]))
        return trial.folder

    return count


@pytest.fixture
def an_hour_back(monkeypatch):
    """The clock of this process from when it is called."""
    real, ns = time.time, time.time_ns

    def turn() -> None:
        monkeypatch.setattr(time, "time", lambda: real() - HOUR)
        monkeypatch.setattr(time, "time_ns", lambda: ns() - HOUR * 10**9)

    return turn


def test_a_trial_goes_on_and_is_told_once(here, plan, put_store, an_hour_back, told_once, stop_after):
    folder, whole = plan("runs", steps=6), plan("whole", steps=6)
    put_store(here.cwd / "runs")
    assert work(whole, Stop()) == 0
    assert work(folder, stop_after(3)) == STOPPED
    assert here("sync", "--out", "runs").code == 0
    an_hour_back()
    assert work(folder, Stop()) == 0
    found = Record(folder)
    assert (found.status, found.damage) == ("done", "")
    assert [line.t for line in found.ledger()] != sorted(line.t for line in found.ledger())
    measured = [[(line.name, line.step, line.value) for line in Record(each).ledger()] for each in (folder, whole)]
    assert measured[0] == measured[1] and found.metrics == Record(whole).metrics
    for _ in range(2):
        done = here("sync", "--out", "runs")
        assert (done.code, done.out) == (0, "1 trials are in MLflow\n")
        assert told_once(here.cwd / "runs") == 12
    assert here("status", "--out", "runs").code == 0


def test_what_is_left_is_not_known_before_the_clock_is_where_it_was():
    said = Progress(3, 12, "", at=60.0, begun=0.0, before=0).next(4, 12, "", now=60.0 - HOUR)
    assert said.left(now=60.0 - HOUR) is None
    assert said.next(5, 12, "", now=100.0).left(now=100.0) == pytest.approx(7 * 20.0)
