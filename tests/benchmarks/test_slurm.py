"""What becomes of trials whose jobs Slurm says this or that of, by a cluster that says what a test wants."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from engram.backbone.errors import UserError
from engram.benchmarks.driving.launch import jobs as jobs_module
from engram.benchmarks.driving.launch import slurm
from engram.benchmarks.driving.launch.contract import Ended, Resources
from engram.benchmarks.driving.launch.jobs import Seen, SlurmJobs, Unanswered, job_name
from engram.benchmarks.driving.launch.slurm import SlurmLauncher
from engram.benchmarks.worker.stopping import STOPPED

pytest.importorskip("submitit")


def test_without_submitit_and_without_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="given on a machine of a Slurm cluster; got one without srun"):
        slurm.check("fast", Resources())
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"--slurm must have submitit; got none. pip install 'engram\[slurm\]'"):
        slurm.check("local", Resources())


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
    made = SlurmLauncher(tmp_path, "local", 2)
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


def test_a_job_is_found_by_its_trial_alone(tmp_path):
    """Two output folders hold trials of one name."""
    names = {job_name(tmp_path / out / "trials" / trial) for out in "ab" for trial in "xy"}
    assert len(names) == 4
    assert all(name.startswith("engram-") for name in names)
