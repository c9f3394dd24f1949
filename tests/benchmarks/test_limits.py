"""What a trial may hold and take, and what is said of one that holds or takes more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from engram.benchmarks.records.quantities import parse_duration, parse_size
from engram.benchmarks.records.trials import Record, trial_names
from engram.benchmarks.worker import limits
from engram.benchmarks.worker.limits import Limits, resident
from engram.benchmarks.worker.stopping import STOPPED, Stop


@pytest.mark.parametrize("text", ["4", "GiB", "4 parsecs", "-1GiB", "0B", "1GiB 2MiB", ""])
def test_an_amount_of_memory(text):
    with pytest.raises(ValueError, match="such as 4GiB"):
        parse_size(text)


@pytest.mark.parametrize("text", ["2", "h", "2 years", "1h and 2min", "0s", "", "1e9s", "99999999d"])
def test_a_time(text):
    with pytest.raises(ValueError, match="a time"):
        parse_duration(text)


def test_wrong_limits_are_said_at_once(here):
    done = here("run", "counting.count", "--memory", "lots", "--time", "long")
    assert done.code == 2
    assert [line.split()[1] for line in done.complaints] == ["--memory", "--time"]
    assert not (here.cwd / "runs").exists()


def test_memory_counts_what_a_trial_started():
    before = resident(os.getpid())
    code = "data = b'x' * 2**26; print('there', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline()
        assert resident(os.getpid()) - before > 2**26
        child.communicate(b"\n")
    assert resident(os.getpid()) - before < 2**26


def test_a_trial_over_its_time_has_a_checkpoint_and_goes_on(here):
    words = ("run", "counting.count", "--steps", "60", "--pause", "0.1", "--out", "runs")
    done = here(*words, "--time", "1s")
    (name,) = trial_names(here.cwd / "runs")
    folder = here.cwd / "runs" / "trials" / name
    assert done.code == 1
    assert f"engram: trial {name} failed: the time of a trial must be at most 1 s (--time); got " in done.err
    assert "in the middle" not in done.err
    assert Record(folder).error["kind"] == "time"
    assert list((folder / "ckpt").iterdir())
    done = here(*words, "--time", "1min")
    assert done.code == 0
    assert "resumed at step" in (folder / "log.txt").read_text()


def test_a_trial_over_its_memory_is_ended(here):
    done = here("run", "counting.count", "--steps", "900", "--pause", "0.1", "--memory", "5MB", "--json")
    (name,) = trial_names(here.cwd / "runs")
    assert (done.code, done.out) == (1, "")
    assert "the memory of a trial must be at most 4.77 MiB (--memory); got " in done.err
    assert Record(here.cwd / "runs" / "trials" / name).error["kind"] == "memory"
    assert not (here.cwd / "runs" / "trials" / name / ".reserve").exists()


def test_a_trial_that_saves_nothing_is_ended_all_the_same(tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr(limits, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(limits, "LEAST_GRACE_SECONDS", 0.05)
    monkeypatch.setattr(limits, "_leave", lambda folder, kind, message: ended.append((kind, message)))
    stop = Stop()
    with Limits(seconds=0.05).watched(tmp_path, stop, os.getpid()):
        time.sleep(0.5)
    assert stop.asked
    assert (ended[0][0], ", in the middle of its work" in ended[0][1]) == ("time", True)


def test_who_reaches_a_limit_says_so_and_takes_along_what_it_started(tmp_path, monkeypatch):
    left = []
    monkeypatch.setattr("os._exit", left.append)
    (tmp_path / ".reserve").touch()
    with subprocess.Popen(["sleep", "600"]) as child:
        limits._leave(tmp_path, "memory", limits.out_of_memory(2**30, 2**31))
        assert child.wait() == -signal.SIGKILL
    assert left == [1]
    assert not (tmp_path / ".reserve").exists()
    assert (
        Record(tmp_path)
        .error["message"]
        .startswith("the memory of a trial must be at most 1 GiB (--memory); got 2 GiB.")
    )
    (tmp_path / "error.json").unlink()
    (tmp_path / "result.json").touch()  # done just now
    limits._leave(tmp_path, "time", "")
    assert not (tmp_path / "error.json").exists()


def test_who_is_over_its_time_may_still_be_stopped(monkeypatch):
    left = []
    monkeypatch.setattr("os._exit", left.append)
    stop = Stop(asked=True, why="it took too long")
    stop._on_signal(15, None)
    assert (stop.asked, stop.why, left) == (True, "", [])
    stop._on_signal(15, None)
    assert left == [STOPPED]
