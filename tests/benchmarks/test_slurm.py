"""Trials as Slurm jobs: by submitit's local executor, by a cluster that says what a test wants, and by a real one."""

from __future__ import annotations

import json
import signal
import sys
from types import SimpleNamespace

import pytest

from engram.backbone.errors import UserError
from engram.benchmarks.driving.launch import jobs as jobs_module
from engram.benchmarks.driving.launch import slurm
from engram.benchmarks.driving.launch.contract import Ended, Resources
from engram.benchmarks.driving.launch.jobs import Seen, SlurmJobs, Unanswered, job_name
from engram.benchmarks.driving.launch.slurm import SlurmLauncher
from engram.benchmarks.records.trials import Record, trial_names
from engram.benchmarks.worker.stopping import STOPPED

pytest.importorskip("submitit")

SUITE = """
experiment = "counting.count"
name = "small"
[options]
pause = {pause}
steps = {steps}
[grid]
stride = [1.0, 2.0]
"""


@pytest.fixture(autouse=True)
def _look_often(monkeypatch):
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.1)


@pytest.fixture
def suite(engram, put_store):
    """Write the suite of two trials; the words of its sweep."""
    put_store(engram.cwd / "runs")

    def write(pause=0.0, steps=5):
        (engram.cwd / "small.toml").write_text(SUITE.format(pause=pause, steps=steps))
        return ("sweep", "small.toml", "--json", "--out", engram.cwd / "runs", "--workers", "2")

    return write


def table(done):
    return [(each["options"], each["seed"], each["metrics"]["total"], each["status"]) for each in done.json["trials"]]


def logs(out):
    return [(out / "trials" / trial / "log.txt").read_text() for trial in trial_names(out)]


def begun(out):
    """The trials that have logged something."""
    return [trial for trial in trial_names(out) if Record(out / "trials" / trial).ledger()]


def test_a_sweep_through_submitit_leaves_nothing_of_it_behind(here, suite):
    done = here(*suite(), "--slurm", "local")
    assert done.code == 0, done.err
    assert table(done) == [({"stride": 1.0}, 0, 5.0, "done"), ({"stride": 2.0}, 0, 10.0, "done")]
    assert not (here.cwd / "runs" / "slurm").exists()


def test_a_driver_that_is_started_again_takes_its_jobs_on(engram, here, suite, wait_for, kill_hard, workers_in):
    words, out = (*suite(pause=0.1, steps=80), "--slurm", "local"), engram.cwd / "runs"
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
    assert [row[2:] for row in table(done)] == [(80.0, "done"), (160.0, "done")]
    assert not any("resumed" in log for log in logs(out))


def test_a_sweep_that_is_stopped_keeps_checkpoints(engram, here, suite, wait_for, workers_in):
    words, out = (*suite(pause=0.1, steps=80), "--slurm", "local"), engram.cwd / "runs"
    driver = engram.start(*words)
    wait_for(lambda: len(begun(out)) == 2)
    driver.send_signal(signal.SIGTERM)
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 143, err
    assert not workers_in(out)
    assert err.count("stopped") == 2
    for trial in trial_names(out):
        assert list((out / "trials" / trial / "ckpt").glob("state-*.pt"))


def test_a_job_that_vanished_is_lost(engram, suite, wait_for, workers_in, kill_hard):
    words, out = (*suite(pause=0.1, steps=60), "--slurm", "local", "--workers", "1"), engram.cwd / "runs"
    driver = engram.start(*words)
    wait_for(lambda: len(begun(out)) == 1)
    kill_hard(workers_in(out)[0])
    wait_for(lambda: len(begun(out)) == 2)
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate(timeout=120)
    assert "ended as UNKNOWN; the same command resumes it" in err


def test_one_cluster_alone(here, suite):
    done = here(*suite(), "--slurm", "local", "--ray", "auto")
    assert done.code == 2
    assert "--slurm must be left out where --ray is given; got local. Choose one." in done.err


def test_gpus_are_a_clusters(here, suite):
    done = here(*suite(), "--gpus", "1")
    assert done.code == 2
    assert "--gpus must be given with --ray or --slurm; got 1." in done.err


def test_without_submitit_and_without_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="given on a machine of a Slurm cluster; got one without srun"):
        SlurmLauncher(tmp_path, "fast", 1, Resources())
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"--slurm must have submitit; got none. pip install 'engram\[slurm\]'"):
        SlurmLauncher(tmp_path, "local", 1, Resources())


class Told:
    """Jobs whose states a test says."""

    def __init__(self):
        self.jobs, self.old, self.ended, self.silent = {}, {}, [], False

    def submit(self, folder, resources):
        if self.silent:
            raise Unanswered("sbatch: error: Unable to contact slurm controller")
        job = str(len(self.jobs) + 1)
        self.jobs[job] = Seen(job_name(folder), "PENDING")
        return job

    def look(self):
        if self.silent:
            raise Unanswered("squeue: timed out")
        return dict(self.jobs)

    def remember(self, job):
        return self.old.get(job)

    def end(self, jobs, *, hard):
        if self.silent:
            raise Unanswered("scancel: timed out")
        self.ended.append((sorted(jobs), hard))

    def say(self, job, state, code=None, node="n7"):
        self.jobs[job] = Seen(self.jobs[job].name, state, code, node)


@pytest.fixture
def told(monkeypatch):
    jobs = Told()
    monkeypatch.setattr(slurm, "LocalJobs", lambda folder: jobs)
    monkeypatch.setattr(slurm, "POLL_SECONDS", -1.0)
    return jobs


@pytest.fixture
def launcher(told, tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "LocalJobs", type("Other", (), {"__new__": lambda cls, folder: told}))
    (tmp_path / "a").mkdir()
    made = SlurmLauncher(tmp_path, "local", 2, Resources())
    made.start(tmp_path / "a", Resources())
    return made


def checkpoint(folder, step):
    (folder / "ckpt").mkdir(exist_ok=True)
    (folder / "ckpt" / f"state-{step:09d}.json").write_text("{}")


@pytest.mark.parametrize(
    ("state", "code", "ended"),
    [
        ("COMPLETED", 0, Ended(0)),
        ("FAILED", 1, Ended(1)),
        ("FAILED", -9, Ended(-9)),
        ("FAILED", 143, Ended(143)),
        ("NODE_FAIL", 0, Ended(None, "its job 1 ended as NODE_FAIL on n7")),
        ("OUT_OF_MEMORY", 0, Ended(None, "its job 1 ended as OUT_OF_MEMORY on n7")),
        ("TIMEOUT", 0, Ended(None, "its job 1 ended as TIMEOUT on n7")),
        ("CANCELLED", 0, Ended(None, "its job 1 ended as CANCELLED on n7")),
    ],
)
def test_what_slurm_says_of_a_job(launcher, told, tmp_path, state, code, ended):
    assert launcher.finished() == {}
    told.say("1", "RUNNING")
    assert launcher.finished() == {}
    assert launcher.free() == 1
    (tmp_path / "a" / "result.json").write_text("{}") if state == "COMPLETED" else None
    told.say("1", state, code)
    assert launcher.finished() == {tmp_path / "a": ended}
    assert launcher.free() == 2


@pytest.mark.parametrize(("state", "code"), [("FAILED", 143), ("TIMEOUT", 0), ("PREEMPTED", 0)])
def test_a_job_whose_time_is_over_goes_on_in_another_as_long_as_it_gets_on(
    launcher, told, tmp_path, state, code, capsys
):
    checkpoint(tmp_path / "a", 5)
    told.say("1", state, code)
    assert launcher.finished() == {}
    assert f"job 1 ended as {state}; another one goes on from its checkpoint" in capsys.readouterr().err
    assert list(told.jobs) == ["1", "2"]
    told.say("2", state, code)
    (ended,) = launcher.finished().values()
    assert ended.code in (143, None)


def test_a_job_that_was_told_to_stop_does_not_go_on(launcher, told, tmp_path):
    launcher.stop()
    launcher.kill(frozenset((tmp_path / "b",)))
    assert told.ended == [(["1"], False)]
    checkpoint(tmp_path / "a", 5)
    told.say("1", "CANCELLED")
    assert launcher.finished() == {tmp_path / "a": Ended(STOPPED)}


def test_slurm_is_told_to_stop_until_it_has_heard_it(launcher, told, tmp_path):
    told.silent = True
    launcher.stop()
    assert launcher.finished() == {}
    told.silent = False
    assert launcher.finished() == launcher.finished() == {}
    assert told.ended == [(["1"], False)]  # once: a second time it would leave without a checkpoint


def test_jobs_that_wait_are_cancelled_and_those_that_run_are_told(monkeypatch):
    asked = []

    def scancel(*words):
        asked.append(words)
        raise Unanswered("scancel: timed out")

    monkeypatch.setattr(jobs_module, "_slurm", scancel)
    with pytest.raises(Unanswered):
        SlurmJobs.end(SimpleNamespace(), ["7", "8"], hard=False)  # type: ignore[arg-type]
    assert [words[1] for words in asked] == ["--state=PENDING", "--state=RUNNING"]
    assert asked[1][2:] == ("--signal=TERM", "--batch", "7", "8")


def test_a_worker_of_a_node_that_was_given_up_is_waited_for(launcher, told, tmp_path, monkeypatch):
    """Slurm starts the job again elsewhere while the first worker still holds the trial."""
    working = [True, False]
    monkeypatch.setattr(slurm, "alive", lambda folder: working.pop(0))
    told.say("1", "FAILED", 4)
    assert launcher.finished() == {}
    assert list(told.jobs) == ["1"]
    assert launcher.finished() == {}
    assert list(told.jobs) == ["1", "2"]


def test_a_job_that_slurm_has_forgotten(launcher, told, tmp_path, monkeypatch):
    told.old["1"] = Seen("", "FAILED", -15)
    told.jobs.clear()
    assert launcher.finished() == {}  # it may not know it yet
    monkeypatch.setattr(slurm, "APPEARS_SECONDS", 0.0)
    assert launcher.finished() == {tmp_path / "a": Ended(-15)}
    launcher.start(tmp_path / "a", Resources())
    told.jobs.clear()
    told.old.clear()
    (tmp_path / "a" / "error.json").write_text("{}")
    assert launcher.finished() == {tmp_path / "a": Ended(1)}


def test_a_result_may_show_later_than_its_job_ends(launcher, told, tmp_path):
    told.say("1", "COMPLETED", 0)
    assert launcher.finished() == {}
    (tmp_path / "a" / "result.json").write_text("{}")
    assert launcher.finished() == {tmp_path / "a": Ended(0)}


def test_slurm_that_does_not_answer_is_asked_on(launcher, told, tmp_path, capsys):
    told.silent = True
    assert launcher.finished() == launcher.finished() == {}
    assert capsys.readouterr().err.count("asking on") == 1
    (tmp_path / "b").mkdir()
    launcher.start(tmp_path / "b", Resources())
    assert launcher.finished() == {
        tmp_path / "b": Ended(None, "Slurm took no job (sbatch: error: Unable to contact slurm controller)")
    }
    told.silent = False
    told.say("1", "FAILED", 1)
    assert launcher.finished() == {tmp_path / "a": Ended(1)}


# a real cluster from here on


@pytest.fixture
def cluster(slurm_cluster, engram, monkeypatch):
    for name, value in slurm_cluster.environment.items():
        monkeypatch.setenv(name, value)
        engram.env[name] = value
    return slurm_cluster


def real(function):
    return pytest.mark.slow(pytest.mark.cluster(function))


@real
def test_a_sweep_on_slurm(cluster, engram, suite, wait_for):
    done = engram(*suite(), "--slurm", "here", "--cores", "1")
    assert done.code == 0, done.err
    assert [row[2:] for row in table(done)] == [(5.0, "done"), (10.0, "done")]
    assert all(log.startswith("Slurm job ") for log in logs(engram.cwd / "runs"))
    assert not (engram.cwd / "runs" / "slurm").exists()


@real
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--slurm", "there"), "invalid partition"),
        (("--slurm", "here", "--cores", "64"), "Requested node configuration is not available"),
        (("--slurm", "here", "--gpus", "1"), "Invalid generic resource"),
    ],
)
def test_what_slurm_refuses_is_said_before_any_work(cluster, engram, suite, words, said):
    done = engram(*suite(), *words)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert said in done.err


@real
def test_a_driver_finds_its_slurm_jobs_again(cluster, engram, suite, wait_for, kill_hard, workers_in):
    words, out = (*suite(pause=0.1, steps=100), "--slurm", "here"), engram.cwd / "runs"
    first = engram.start(*words)
    wait_for(lambda: len(begun(out)) == 2)
    kill_hard(first.pid)
    first.communicate()
    done = engram(*words)
    assert done.code == 0, done.err
    assert done.err.count("already") == 2
    assert [row[2:] for row in table(done)] == [(100.0, "done"), (200.0, "done")]
    assert [log.count("Slurm job ") for log in logs(out)] == [1, 1]


@real
def test_jobs_that_are_stopped_save_a_checkpoint(cluster, engram, suite, wait_for, workers_in):
    words, out = (*suite(pause=0.1, steps=100), "--slurm", "here"), engram.cwd / "runs"
    driver = engram.start(*words)
    wait_for(lambda: len(begun(out)) == 2)
    driver.send_signal(signal.SIGTERM)
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 143, err
    assert err.count(" stopped ") == 2, err
    assert not workers_in(out)
    done = engram(*words)
    assert [row[2:] for row in table(done)] == [(100.0, "done"), (200.0, "done")]
    assert all("resumed at step" in log for log in logs(out))


@real
def test_the_notice_of_slurm_is_a_checkpoint_and_another_job(cluster, engram, suite, wait_for):
    words, out = (*suite(pause=0.1, steps=150), "--slurm", "here", "--workers", "1"), engram.cwd / "runs"
    driver = engram.start(*words)
    wait_for(lambda: len(begun(out)) == 1)
    cluster.run("scancel", "--signal=USR2", "--batch", *_jobs(cluster))
    out_, err = driver.communicate(timeout=200)
    assert driver.returncode == 0, err
    assert "ended as FAILED; another one goes on from its checkpoint" in err
    assert [each["metrics"]["total"] for each in json.loads(out_)["trials"]] == [150.0, 300.0]


@real
def test_a_node_that_loses_its_power(cluster, engram, suite, wait_for):
    """Slurm runs the job again elsewhere, and the trial goes on from its checkpoint."""
    words, out = (*suite(pause=0.1, steps=200), "--slurm", "here", "--cores", "2"), engram.cwd / "runs"
    driver = engram.start(*words, ENGRAM_CHECKPOINT_SECONDS="0.5")
    wait_for(lambda: len(begun(out)) == 2)
    cluster.kill("n1", jobs=True)
    try:
        out_, err = driver.communicate(timeout=300)
    finally:
        cluster.add("n1")
    assert driver.returncode == 0, err
    assert [each["metrics"]["total"] for each in json.loads(out_)["trials"]] == [200.0, 400.0]
    assert sum("resumed at step" in log for log in logs(out)) == 1


@real
def test_a_daemon_that_dies_alone(cluster, engram, suite, wait_for):
    """Its job works on: the one that Slurm starts in its place is refused, and the trial is done once."""
    words, out = (*suite(pause=0.1, steps=300), "--slurm", "here", "--cores", "2"), engram.cwd / "runs"
    driver = engram.start(*words)
    wait_for(lambda: len(begun(out)) == 2)
    cluster.kill("n1", jobs=False)
    try:
        out_, err = driver.communicate(timeout=400)
    finally:
        cluster.add("n1")
    assert driver.returncode == 0, err
    assert [each["metrics"]["total"] for each in json.loads(out_)["trials"]] == [300.0, 600.0]


def _jobs(cluster):
    return cluster.run("squeue", "--noheader", "--format=%i").split()


def test_a_job_is_found_by_its_trial_alone(tmp_path):
    """Two output folders hold trials of one name."""
    names = {job_name(tmp_path / out / "trials" / trial) for out in "ab" for trial in "xy"}
    assert len(names) == 4
    assert all(name.startswith("engram-") for name in names)


@real
def test_jobs_know_their_codes(cluster, tmp_path):
    jobs = SlurmJobs(tmp_path, "here", Resources(cores=1, memory=2**28, seconds=60))
    job = jobs.submit(tmp_path / "no-trial", Resources(cores=1))
    cluster.wait_for(lambda: jobs.look()[job].over)
    seen = jobs.look()[job]
    assert (seen.state, seen.code, seen.name) == ("FAILED", 1, job_name(tmp_path / "no-trial"))
    assert jobs.remember(job) is None  # this cluster has no accounting
