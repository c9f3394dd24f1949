"""Trials as tasks of a Ray cluster of several nodes on this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from engram.backbone.errors import UserError
from engram.benchmarks.driving.launch.contract import Resources
from engram.benchmarks.driving.launch.ray import _drop_probes
from engram.benchmarks.records.trials import Record, trial_names

ROOT = Path(__file__).parents[2]
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


def launcher(address, tmp_path):
    from engram.benchmarks.driving.launch.ray import RayLauncher

    return RayLauncher(address, tmp_path, None, Resources())


@pytest.mark.parametrize("address", ["local", "ray://host:1", "nowhere", "host:x", ""])
def test_no_cluster_is_started_silently(tmp_path, address):
    pytest.importorskip("ray")
    with pytest.raises(UserError, match=r"--ray must be auto or HOST:PORT of a running cluster; got "):
        launcher(address, tmp_path)


def test_where_nobody_answers(tmp_path):
    pytest.importorskip("ray")
    with pytest.raises(UserError, match=r"must be the address of a running cluster; got 127.0.0.1:1 \(.*refused\)"):
        launcher("127.0.0.1:1", tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_ray(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--ray must have ray; got none. pip install 'engram\[ray\]'"):
        launcher("auto", tmp_path)


def test_what_killed_drivers_of_this_machine_left_is_removed(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    here = f".node-{socket.gethostname()}"
    kept = {".node-elsewhere-1-ab", f"{here}-{os.getpid()}-ab", f"{here}-x-ab"}
    for name in (*kept, f"{here}-{gone.pid}-ab"):
        (tmp_path / name).touch()
    _drop_probes(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept


# a real cluster from here on


def real(function):
    return pytest.mark.slow(pytest.mark.cluster(function))


@pytest.fixture
def cluster(ray_cluster):
    """With one node of two processors, whatever tests before did with it."""
    ray_cluster.only(2)
    return ray_cluster


@pytest.fixture
def suite(engram, put_store, cluster):
    """Write a suite; the words of its sweep on the cluster."""
    put_store(engram.cwd / "runs")

    def write(pause=0.0, steps=5, seeds=1):
        (engram.cwd / "small.toml").write_text(SUITE.format(pause=pause, steps=steps, seeds=seeds))
        return ("sweep", "small.toml", "--json", "--out", engram.cwd / "runs", "--ray", cluster.address)

    return write


def totals(out):
    return [each["metrics"]["total"] for each in json.loads(out)["trials"]]


def begun(out):
    return [trial for trial in trial_names(out) if Record(out / "trials" / trial).ledger()]


def logs(out):
    return [(out / "trials" / trial / "log.txt").read_text() for trial in trial_names(out)]


def table(done):
    return [{key: each[key] for key in ("trial", "options", "seed", "status")} for each in done.json["trials"]]


@real
def test_the_same_table_by_local_workers_ray_and_slurm(engram, suite):
    words = suite(seeds=2)
    ray = engram(*words)
    assert ray.code == 0, ray.err
    assert [line for line in ray.err.splitlines() if " started " not in line and " done " not in line] == []
    results = {
        trial: Record(engram.cwd / "runs" / "trials" / trial).metrics for trial in trial_names(engram.cwd / "runs")
    }
    for more in ((), ("--slurm", "local")):
        out = engram.cwd / f"other{len(more)}"
        done = engram("sweep", "small.toml", "--json", "--out", out, "--workers", "2", *more)
        assert table(done) == table(ray)
        for trial, metrics in results.items():
            other = Record(out / "trials" / trial).metrics
            assert {**other, "took": 0} == {**metrics, "took": 0}
    assert not list((engram.cwd / "runs").glob(".node-*"))


@real
def test_a_node_that_is_killed_loses_its_trials_alone(engram, suite, cluster, wait_for, workers_in):
    other = cluster.add(1)
    words, out = suite(pause=0.1, steps=150, seeds=2), engram.cwd / "runs"
    driver = engram.start(*words)
    wait_for(lambda: len(begun(out)) >= 3, seconds=120)
    cluster.kill(other)
    _, err = driver.communicate(timeout=300)
    assert driver.returncode == 1, err
    assert err.count("Ray lost it (") == 1, err
    wait_for(lambda: not workers_in(out))
    done = engram(*words)
    assert done.code == 0, done.err
    assert totals(done.out) == [150.0, 151.0, 300.0, 301.0]
    assert sum("resumed at step" in log for log in logs(out)) == 1


@real
def test_trials_of_a_driver_that_is_killed_save_a_checkpoint(engram, suite, wait_for, workers_in, kill_hard):
    words, out = suite(pause=0.1, steps=300), engram.cwd / "runs"
    driver = engram.start(*words)
    wait_for(lambda: len(begun(out)) == 2, seconds=120)
    kill_hard(driver.pid)
    driver.communicate()
    wait_for(lambda: not workers_in(out), seconds=90)
    for trial in trial_names(out):
        assert list((out / "trials" / trial / "ckpt").glob("state-*.pt"))


@real
@pytest.mark.parametrize("times", [1, 2])
def test_a_sweep_that_is_stopped(engram, suite, wait_for, workers_in, times):
    """Once: trials save a checkpoint. Twice: they are killed."""
    words, out = suite(pause=0.1, steps=300), engram.cwd / "runs"
    driver = engram.start(*words)
    wait_for(lambda: len(begun(out)) == 2, seconds=120)
    for _ in range(times):
        driver.send_signal(signal.SIGTERM)
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 143, err
    wait_for(lambda: not workers_in(out))
    if times == 1:
        assert err.count(" stopped ") == 2, err
        assert all(list((out / "trials" / trial / "ckpt").glob("state-*.pt")) for trial in trial_names(out))


@real
def test_two_drivers(engram, suite, wait_for):
    words, out = suite(pause=0.1, steps=300), engram.cwd / "runs"
    driver = engram.start(*words)
    wait_for(lambda: len(begun(out)) == 2, seconds=120)
    second = engram(*words)
    driver.send_signal(signal.SIGTERM)
    driver.communicate(timeout=120)
    assert second.code == 4
    assert "sweep small is held by another engram" in second.err


@real
def test_folders_that_a_node_does_not_see_are_sent_and_come_back(engram, suite, cluster, wait_for):
    cluster.only(0)
    words, out = suite(pause=0.05, steps=60), engram.cwd / "runs"
    cluster.add_apart(out, 2)
    driver = engram.start(*words)
    wait_for(lambda: "started 2 of 2" in driver.stderr.readline(), seconds=120)
    assert [Record(out / "trials" / trial).status for trial in trial_names(out)] == ["running", "running"]
    driver.send_signal(signal.SIGTERM)
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 143, err
    done = engram(*words)
    assert done.code == 0, done.err
    assert totals(done.out) == [60.0, 120.0]
    twice = engram("run", "counting.twice", "--json", "--out", out, "--ray", cluster.address)
    assert twice.code == 0, twice.err
    assert twice.json["metrics"]["double"] == 6.0


@real
def test_other_code_is_refused_before_any_work(engram, suite, cluster, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(".*", "runs", "__pycache__", "docs"))
    with (copy / "benchmarks" / "saying.py").open("a") as file:
        file.write("# changed\n")
    other = cluster.add(1, PYTHONPATH=str(copy))
    done = engram(*suite())
    cluster.kill(other)
    assert done.code == 2
    assert done.err.count("the code on ") == 1
    assert done.err.count("engram 0.") == 2
    assert "Install the same there." in done.err
    assert not (engram.cwd / "runs" / "trials").exists() or not trial_names(engram.cwd / "runs")


@real
def test_a_trial_that_fits_nowhere(engram, suite):
    done = engram(*suite(), "--cores", "64")
    assert done.code == 2
    assert "a trial must be small enough for one node; got nodes with" in done.err
