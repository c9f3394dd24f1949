"""Trials as jobs of a real Slurm of two nodes on this machine."""

from __future__ import annotations

import signal

import pytest

from engram.benchmarks.driving.launch.contract import Resources
from engram.benchmarks.driving.launch.jobs import SlurmJobs, job_name
from engram.benchmarks.records.lines import read_ledger

pytestmark = [pytest.mark.slow, pytest.mark.cluster]
pytest.importorskip("submitit")
HERE = ("--slurm", "here")


@pytest.fixture(autouse=True)
def cluster(slurm_cluster, engram, monkeypatch):
    for name, value in slurm_cluster.environment.items():
        monkeypatch.setenv(name, value)
        engram.env[name] = value
    return slurm_cluster


@pytest.fixture
def jobs(cluster):
    """The ids of all jobs in the queue."""
    return lambda: cluster.run("squeue", "--noheader", "--format=%i").split()


def test_a_sweep_on_slurm(engram, small, logs, totals):
    done = engram(*small(*HERE, "--cores", "1"))
    assert done.code == 0, done.err
    assert totals(done.out) == [5.0, 10.0]
    assert all(log.startswith("Slurm job ") for log in logs(engram.cwd / "runs"))
    assert not (engram.cwd / "runs" / "slurm").exists()


def test_a_trial_by_several_processes_takes_a_core_for_each_of_one_node(cluster, engram):
    words = ("run", "backbone.train", "--backbone", "lenet5", "--epochs", "1", "--device", "cpu", *HERE)
    words += ("--json", "--out", engram.cwd / "runs")
    done = engram(*words, "--devices", "2")
    assert done.code == 0, done.err
    assert done.json["metrics"]["test/accuracy"] > 0.2
    job = f"engram-{done.json['trial']}"
    assert f"2 {job}" in cluster.run("squeue", "--states=all", "--noheader", f"--format=%C %.{len(job)}j")
    done = engram(*words, "--devices", "64")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "Requested node configuration is not available. See: sinfo, and what --devices" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--slurm", "there"), "invalid partition"),
        (("--slurm", "here", "--cores", "64"), "Requested node configuration is not available"),
        (("--slurm", "here", "--gpus", "1"), "Invalid generic resource"),
    ],
)
def test_what_slurm_refuses_is_said_before_anything_is_written(engram, small, words, said):
    small()
    done = engram("sweep", "small.toml", "--out", engram.cwd / "new", *words)
    assert done.code == 2
    assert done.err.count("\n") == 1, done.err
    assert said in done.err
    assert not (engram.cwd / "new").exists()


def test_a_driver_finds_its_slurm_jobs_again(engram, small, begun, logs, totals, wait_for, kill_hard):
    words, out = small(*HERE, pause=0.1, steps=100), engram.cwd / "runs"
    first = engram.start(*words)
    wait_for(lambda: len(begun(out)) == 2)
    kill_hard(first.pid)
    first.communicate()
    done = engram(*words)
    assert done.code == 0, done.err
    assert done.err.count("already") == 2
    assert totals(done.out) == [100.0, 200.0]
    assert [log.count("Slurm job ") for log in logs(out)] == [1, 1]


def test_jobs_that_are_stopped_save_a_checkpoint(engram, small, begun, logs, totals, wait_for, workers_in):
    words, out = small(*HERE, pause=0.1, steps=100), engram.cwd / "runs"
    driver = engram.start(*words)
    wait_for(lambda: len(begun(out)) == 2)
    driver.send_signal(signal.SIGTERM)
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 143, err
    assert err.count(" stopped ") == 2, err
    assert not workers_in(out)
    done = engram(*words)
    assert totals(done.out) == [100.0, 200.0]
    assert all("resumed at step" in log for log in logs(out))


def test_the_notice_of_slurm_is_a_checkpoint_and_another_job(cluster, engram, small, begun, totals, wait_for, jobs):
    words, out = small(*HERE, "--workers", "1", pause=0.1, steps=150), engram.cwd / "runs"
    driver = engram.start(*words)
    wait_for(lambda: len(begun(out)) == 1)
    cluster.run("scancel", "--signal=USR2", "--batch", *jobs())
    said, err = driver.communicate(timeout=200)
    assert driver.returncode == 0, err
    assert "ended as FAILED; another one goes on from its checkpoint" in err
    assert totals(said) == [150.0, 300.0]


def test_a_node_that_loses_its_power(cluster, engram, small, logs, totals, wait_for):
    """Slurm runs the job again elsewhere, and the trial goes on from its checkpoint."""
    words, out = small(*HERE, "--cores", "2", pause=0.1, steps=200), engram.cwd / "runs"
    driver = engram.start(*words, ENGRAM_CHECKPOINT_SECONDS="0.5")
    wait_for(lambda: len({path.parent for path in out.glob("trials/*/ckpt/state-*.json")}) == 2)
    cluster.kill("n1", jobs=True)
    try:
        said, err = driver.communicate(timeout=300)
    finally:
        cluster.add("n1")
    assert driver.returncode == 0, err
    assert totals(said) == [200.0, 400.0]
    assert sum("resumed at step" in log for log in logs(out)) == 1


def test_a_daemon_that_dies_alone(cluster, engram, small, begun, totals, wait_for):
    """Its job works on: the one that Slurm starts in its place is refused, and the trial is done once."""
    words, out = small(*HERE, "--cores", "2", pause=0.1, steps=500), engram.cwd / "runs"
    driver = engram.start(*words)
    wait_for(lambda: len(begun(out)) == 2)
    cluster.kill("n1", jobs=False)
    try:
        said, err = driver.communicate(timeout=400)
    finally:
        cluster.add("n1")
    assert driver.returncode == 0, err
    assert totals(said) == [500.0, 1000.0]


def test_every_machine_is_sampled_once(cluster, engram, small, totals):
    cluster.kill("n2", jobs=False)
    cluster.add("n2", apart=True)
    try:
        done = engram(*small(*HERE, "--workers", "4", pause=0.1, steps=50, seeds=2))
    finally:
        cluster.kill("n2", jobs=False)
        cluster.add("n2")
    assert done.code == 0, done.err
    (ledger,) = (engram.cwd / "runs" / "sweeps" / "small" / "machines").glob("*/metrics.jsonl")  # not n1: the driver's
    lines = read_ledger(ledger).lines
    assert ledger.parent.name == "apart"
    assert {line.name.rpartition("/")[0] for line in lines} == {"system/apart"}
    assert len({line.step for line in lines}) == len({line.t for line in lines})


def test_jobs_know_their_codes(cluster, tmp_path):
    jobs = SlurmJobs(tmp_path, "here")
    job = jobs.submit(tmp_path / "no-trial", Resources(cores=1, memory=2**28, seconds=60))
    cluster.wait_for(lambda: jobs.look()[job].over)
    seen = jobs.look()[job]
    assert (seen.state, seen.code, seen.name) == ("FAILED", 1, job_name(tmp_path / "no-trial"))
    assert jobs.remember(job) is None  # this cluster has no accounting
