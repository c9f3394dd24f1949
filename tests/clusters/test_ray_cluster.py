"""Trials as tasks of a real Ray cluster of several nodes on this machine."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from engram.benchmarks.records.lines import read_ledger
from engram.benchmarks.records.trials import Record, trial_names

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.cluster]


@pytest.fixture
def cluster(ray_cluster):
    """With one node of two processors, whatever tests before did with it."""
    ray_cluster.only(2)
    return ray_cluster


@pytest.fixture
def suite(small, cluster):
    """The words of a sweep on the cluster."""
    return lambda **more: small("--ray", cluster.address, **more)


def test_the_same_table_by_local_workers_ray_and_slurm(engram, small, cluster):
    told, results = [], []
    for where in (("--ray", cluster.address), ("--workers", "2"), ("--slurm", "local", "--workers", "2")):
        out = engram.cwd / where[0].strip("-")
        done = engram(*small(seeds=2), "--out", out, *where)
        assert done.code == 0, done.err
        assert [line for line in done.err.splitlines() if " started " not in line and " done " not in line] == []
        told.append([{**each, "metrics": {**each["metrics"], "took": 0}} for each in done.json["trials"]])
        records = [Record(out / "trials" / trial) for trial in trial_names(out)]
        results.append(
            [(each.trial, each.config, [(at.name, at.step, at.value) for at in each.ledger()]) for each in records]
        )
        assert not list(out.glob(".node-*"))
    assert len(told[0]) == 4
    assert told[0] == told[1] == told[2]
    assert results[0] == results[1] == results[2]


def test_a_node_that_is_killed_loses_its_trials_alone(
    engram, suite, cluster, begun, logs, totals, wait_for, workers_in
):
    other = cluster.add(1)
    words, out = suite(pause=0.1, steps=150, seeds=2), engram.cwd / "runs"
    driver = engram.start(*words)
    wait_for(lambda: len(begun(out)) >= 3, seconds=120)
    cluster.kill(other)
    said, err = driver.communicate(timeout=300)
    assert driver.returncode == 1, err
    assert [each["kind"] for each in json.loads(said)["failures"]] == ["lost"]
    (line,) = (line for line in err.splitlines() if "counting.count" not in line and "  after " not in line)
    assert "Ray lost it (" in line
    wait_for(lambda: not workers_in(out))
    done = engram(*words)
    assert done.code == 0, done.err
    assert totals(done.out) == [150.0, 151.0, 300.0, 301.0]
    assert sum("resumed at step" in log for log in logs(out)) == 1


def test_a_head_that_is_lost_is_said_in_a_line_of_ours_and_one_of_rays(
    engram, small, new_ray_cluster, begun, wait_for, workers_in
):
    with new_ray_cluster() as cluster:
        cluster.add(2)
        words, out = small("--ray", cluster.address, pause=0.1, steps=150), engram.cwd / "runs"
        driver = engram.start(*words, RAY_gcs_rpc_server_reconnect_timeout_s="8")
        wait_for(lambda: len(begun(out)) == 2, seconds=120)
        cluster.lose_head()
        said, err = driver.communicate(timeout=120)
        wait_for(lambda: not workers_in(out), seconds=120)
    assert driver.returncode == 1
    assert said == ""
    ours, *theirs = (line for line in err.splitlines() if line and " started " not in line)
    assert f"the head of the Ray cluster at {cluster.address} does not answer (Connection refused)." in ours
    assert len(theirs) <= 2, err
    for trial in trial_names(out):  # the nodes wait for another head for a minute
        assert Record(out / "trials" / trial).status == "done" or list(out.glob(f"trials/{trial}/ckpt/state-*.pt"))


def test_trials_of_a_driver_that_is_killed_save_a_checkpoint(engram, suite, begun, wait_for, workers_in, kill_hard):
    words, out = suite(pause=0.1, steps=300), engram.cwd / "runs"
    driver = engram.start(*words)
    wait_for(lambda: len(begun(out)) == 2, seconds=120)
    kill_hard(driver.pid)
    driver.communicate()
    wait_for(lambda: not workers_in(out), seconds=90)
    for trial in trial_names(out):
        assert list((out / "trials" / trial / "ckpt").glob("state-*.pt"))


@pytest.mark.parametrize("times", [1, 2])
def test_a_sweep_that_is_stopped(engram, suite, begun, wait_for, workers_in, times):
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


def test_two_drivers(engram, suite, begun, wait_for):
    words, out = suite(pause=0.1, steps=300), engram.cwd / "runs"
    driver = engram.start(*words)
    wait_for(lambda: len(begun(out)) == 2, seconds=120)
    second = engram(*words)
    driver.send_signal(signal.SIGTERM)
    driver.communicate(timeout=120)
    assert second.code == 4
    assert "sweep small is held by another engram" in second.err


def test_folders_that_a_node_does_not_see_are_sent_and_come_back(engram, suite, cluster, totals, wait_for):
    """With them what their machine was sampled for."""
    cluster.only(0)
    words, out = suite(pause=0.05, steps=60), engram.cwd / "runs"
    cluster.add_apart(out, 2)
    driver = engram.start(*words)
    running = ["running", "running"]
    wait_for(lambda: [Record(out / "trials" / trial).status for trial in trial_names(out)] == running, seconds=120)
    driver.send_signal(signal.SIGTERM)
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 143, err
    done = engram(*words)
    assert done.code == 0, done.err
    assert totals(done.out) == [60.0, 120.0]
    (ledger,) = (out / "sweeps" / "small" / "machines").glob("*/metrics.jsonl")
    assert ledger.parent.name == "apart"
    assert {line.name.rpartition("/")[0] for line in read_ledger(ledger).lines} == {"system/apart"}
    assert not list(out.glob("trials/*/machines"))
    twice = engram("run", "counting.twice", "--json", "--out", out, "--ray", cluster.address)
    assert twice.code == 0, twice.err
    assert twice.json["metrics"]["double"] == 6.0


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


def test_a_trial_by_several_processes_takes_a_core_for_each_of_one_node(engram, cluster):
    words = ("run", "backbone.train", "--backbone", "lenet5", "--epochs", "1", "--device", "cpu")
    words += ("--json", "--out", engram.cwd / "runs", "--ray", cluster.address)
    done = engram(*words, "--devices", "2")
    assert done.code == 0, done.err
    assert done.json["metrics"]["test/accuracy"] > 0.2
    done = engram(*words, "--devices", "3")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "a trial must be small enough for one node; got nodes with 0 cores, 2 cores" in done.err


@pytest.mark.parametrize(
    ("words", "has"),
    [(("--cores", "64"), "0 cores, 2 cores"), (("--gpus", "1"), "0 cores and 0 GPUs, 2 cores and 0 GPUs")],
)
def test_a_trial_that_fits_nowhere_is_refused_before_anything_is_written(engram, small, cluster, words, has):
    small()
    done = engram("sweep", "small.toml", "--out", engram.cwd / "new", "--ray", cluster.address, *words)
    assert done.code == 2
    remedy = "See: --devices, --cores, --gpus and --memory."
    assert done.err == f"engram: a trial must be small enough for one node; got nodes with {has}. {remedy}\n"
    assert not (engram.cwd / "new").exists()
