"""Trials as jobs of submitit's local executor, which stands for Slurm on a machine without it."""

from __future__ import annotations

import signal

import pytest

from engram.benchmarks.driving.launch import slurm
from engram.benchmarks.records.trials import trial_names

pytest.importorskip("submitit")
LOCAL = ("--slurm", "local", "--workers", "2")


@pytest.fixture(autouse=True)
def _look_often(monkeypatch):
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.1)


def test_a_sweep_through_submitit_leaves_nothing_of_it_behind(here, small):
    done = here(*small(*LOCAL))
    assert done.code == 0, done.err
    assert [
        (each["options"], each["seed"], each["metrics"]["total"], each["status"]) for each in done.json["trials"]
    ] == [
        ({"stride": 1.0}, 0, 5.0, "done"),
        ({"stride": 2.0}, 0, 10.0, "done"),
    ]
    assert not (here.cwd / "runs" / "slurm").exists()


def test_a_driver_that_is_started_again_takes_its_jobs_on(
    engram, here, small, begun, logs, totals, wait_for, kill_hard, workers_in
):
    words, out = small(*LOCAL, pause=0.1, steps=80), engram.cwd / "runs"
    first = engram.start(*words)
    wait_for(lambda: len(begun(out)) == 2)
    kill_hard(first.pid)
    first.wait()
    for pipe in (first.stdout, first.stderr):  # its jobs hold the other ends
        pipe.close()
    assert len(workers_in(out)) == 2
    done = here(*words)
    assert done.code == 0, done.err
    assert done.err.count("already") == 2
    assert totals(done.out) == [80.0, 160.0]
    assert not any("resumed" in log for log in logs(out))


def test_a_sweep_that_is_stopped_keeps_checkpoints(engram, small, begun, wait_for, workers_in):
    words, out = small(*LOCAL, pause=0.1, steps=80), engram.cwd / "runs"
    driver = engram.start(*words)
    wait_for(lambda: len(begun(out)) == 2)
    driver.send_signal(signal.SIGTERM)
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 143, err
    assert not workers_in(out)
    assert err.count("stopped") == 2
    for trial in trial_names(out):
        assert list((out / "trials" / trial / "ckpt").glob("state-*.pt"))


def test_a_job_that_vanished_is_lost(engram, small, begun, wait_for, workers_in, kill_hard):
    words, out = small(*LOCAL, "--workers", "1", pause=0.1, steps=60), engram.cwd / "runs"
    driver = engram.start(*words)
    wait_for(lambda: len(begun(out)) == 1)
    kill_hard(workers_in(out)[0])
    wait_for(lambda: len(begun(out)) == 2)
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate(timeout=120)
    assert "ended as UNKNOWN; the same command resumes it" in err


def test_one_cluster_alone(here, small):
    done = here(*small("--slurm", "local", "--ray", "auto"))
    assert done.code == 2
    assert "--slurm must be left out where --ray is given; got local. Choose one." in done.err


def test_gpus_are_a_clusters(here, small):
    done = here(*small("--gpus", "1"))
    assert done.code == 2
    assert "--gpus must be given with --ray or --slurm; got 1." in done.err


@pytest.mark.parametrize("words", [("sweep", "small.toml"), ("run", "counting.count")])
@pytest.mark.parametrize(
    ("where", "said"),
    [
        (("--ray", "nowhere"), "--ray must be auto or HOST:PORT of a running cluster; got nowhere."),
        (("--slurm", "gpu"), "--slurm must be given on a machine of a Slurm cluster; got one without srun."),
    ],
)
def test_a_cluster_that_is_not_there_leaves_nothing_behind(here, small, monkeypatch, tmp_path, words, where, said):
    pytest.importorskip("ray")
    small()
    monkeypatch.setenv("PATH", str(tmp_path))  # no srun
    done = here(*words, "--out", here.cwd / "new", *where)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not (here.cwd / "new").exists()
