"""The loop of the driver, with a launcher that runs nothing."""

from __future__ import annotations

import time

import pytest

from engram.benchmarks.driving import loop
from engram.benchmarks.driving.launch.contract import Ended
from engram.benchmarks.driving.proposing.grid import Grid
from engram.benchmarks.driving.queue import Queue
from engram.benchmarks.driving.setting import PlanOutcome, RunSetting
from engram.benchmarks.driving.view import ProgressView
from engram.benchmarks.planning.plan import Trial
from engram.benchmarks.records.trials import Record
from engram.benchmarks.worker.stopping import STOPPED


def trial(folder, name, *needs):
    return Trial(
        id=name,
        folder=folder / name,
        experiment="toy.count",
        version=1,
        config={"seed": 0},
        inputs={},
        paths={},
        needs=needs,
    )


class Scripted:
    """Ends each trial as its script says, one after the other: an exit code, or None where it is lost."""

    def __init__(self, scripts, workers=1):
        self.scripts, self.workers = {name: list(codes) for name, codes in scripts.items()}, workers
        self.started, self.stopped, self.running = [], [], {}

    def free(self):
        return self.workers - len(self.running)

    def start(self, folder, resources):
        self.started.append(folder.name)
        self.running[folder] = self.scripts[folder.name].pop(0)

    def finished(self):
        ended = {folder: code for folder, code in self.running.items() if code != "stays"}
        for folder, code in ended.items():
            del self.running[folder]
            if code == 0:
                self.finish(folder)
        return {folder: Ended(code, "" if code is not None else "its node is gone") for folder, code in ended.items()}

    def finish(self, folder):
        done.add(folder.name)

    def wait(self, seconds):
        time.sleep(seconds)

    def stop(self, folders=None):
        for folder in [each for each in self.running if folders is None or each in folders]:
            self.stopped.append(folder.name)
            self.running[folder] = STOPPED

    kill = stop

    def close(self):
        pass


done: set[str] = set()


@pytest.fixture(autouse=True)
def _records(monkeypatch):
    """A trial is done when its script said so."""
    done.clear()
    monkeypatch.setattr(Record, "status", property(lambda self: "done" if self.trial in done else "unfinished"))
    monkeypatch.setattr(loop, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(loop, "BACKOFF_SECONDS", 0.01)


def drive(tmp_path, proposer, launcher, retries=0):
    outcome = PlanOutcome()
    setting = RunSetting(out=tmp_path, data_root=tmp_path, argv=[], retries=retries)
    known: list[str] = []
    loop.Drive(proposer, launcher, ProgressView(proposer.total), outcome, setting, known.append).run()
    assert len(known) == len(set(known))
    return outcome


def test_trials_start_when_what_they_need_is_done(tmp_path):
    chain = [trial(tmp_path, "a"), trial(tmp_path, "b", "a"), trial(tmp_path, "c", "a", "b"), trial(tmp_path, "d")]
    launcher = Scripted({name: [0] for name in "abcd"}, workers=2)
    assert drive(tmp_path, Grid(chain), launcher).code == 0
    assert launcher.started == ["a", "d", "b", "c"]


def test_what_needs_a_failed_trial_fails_with_it_and_the_rest_goes_on(tmp_path):
    chain = [trial(tmp_path, "a"), trial(tmp_path, "b", "a"), trial(tmp_path, "c", "b"), trial(tmp_path, "d")]
    launcher = Scripted({"a": [1], "d": [0]})
    outcome = drive(tmp_path, Grid(chain), launcher)
    assert [(each.trial, each.kind) for each in outcome.failures] == [("a", "crash"), ("b", "needs"), ("c", "needs")]
    assert (outcome.code, launcher.started) == (1, ["a", "d"])


def test_trials_that_were_done_before_are_skipped(tmp_path):
    done.update("ab")
    launcher = Scripted({"c": [0]})
    outcome = drive(
        tmp_path, Grid([trial(tmp_path, "a"), trial(tmp_path, "b", "a"), trial(tmp_path, "c", "b")]), launcher
    )
    assert (outcome.skipped, launcher.started) == (["a", "b"], ["c"])


def test_what_a_worker_that_was_killed_behind_its_result_left_is_removed(tmp_path):
    done.update("ab")
    for name, left in (("a", (".reserve", "progress.json", "ckpt/state-000000001.pt")), ("b", ("ckpt/kept.pt",))):
        for path in (tmp_path / name / each for each in left):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    drive(tmp_path, Grid([trial(tmp_path, "a"), trial(tmp_path, "b")]), Scripted({}))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["kept.pt"]


def test_a_lost_trial_is_started_again_as_often_as_was_asked(tmp_path, capsys):
    launcher = Scripted({"a": [None, -9, 0]})
    assert drive(tmp_path, Grid([trial(tmp_path, "a")]), launcher, retries=2).code == 0
    assert launcher.started == ["a", "a", "a"]
    said = capsys.readouterr().err
    assert "a  lost; attempt 2 of 3 in 0.01 s" in said
    assert "a  killed; attempt 3 of 3 in 0.02 s" in said
    done.clear()
    outcome = drive(tmp_path, Grid([trial(tmp_path, "a")]), Scripted({"a": [None, None]}), retries=1)
    (failure,) = outcome.failures
    assert (failure.kind, failure.message) == ("lost", "its node is gone; the same command resumes it")


def test_a_mistake_is_not_tried_again(tmp_path):
    launcher = Scripted({"a": [1], "b": [4]})
    outcome = drive(tmp_path, Grid([trial(tmp_path, "a"), trial(tmp_path, "b")]), launcher, retries=5)
    assert [each.kind for each in outcome.failures] == ["crash", "busy"]


def test_a_search_gives_trials_up_and_asks_for_more(tmp_path, monkeypatch):
    monkeypatch.undo()  # status is read from the folders, pruned.json among them
    monkeypatch.setattr(loop, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(loop, "LOOK_SECONDS", 0.0)

    class Search:
        axes, total, told = ("seed",), None, []

        def __init__(self):
            self.waiting = [trial(tmp_path, "a"), trial(tmp_path, "b")]

        def ask(self, n):
            assert n == 1
            return [self.waiting.pop(0)] if len(self.told) == 2 - len(self.waiting) else []

        def tell(self, proposed, record):
            self.told.append((proposed.id, record.status, record.why))

        def look(self, proposed, record):
            return "worse than half of the others" if proposed.id == "a" else ""

        @property
        def exhausted(self):
            return not self.waiting

    launcher = Scripted({"a": ["stays"], "b": [3]})
    outcome = drive(tmp_path, search := Search(), launcher)
    assert launcher.stopped == ["a"]
    assert outcome.pruned == {"a": "worse than half of the others"}
    assert [each[0] for each in search.told] == ["a", "b"]
    assert search.told[0][1:] == ("pruned", "worse than half of the others")
    assert [failure.trial for failure in outcome.failures] == ["b"]


def test_a_queue_knows_who_waits_for_whom(tmp_path):
    queue = Queue()
    assert queue.add(trial(tmp_path, "x", "elsewhere")) == ""  # was done before
    first = queue.next()
    assert first is not None
    assert first.id == "x"
    for name, needs in (("a", ()), ("b", ("a",)), ("c", ("a", "b"))):
        queue.add(trial(tmp_path, name, *needs))
    assert (len(queue), queue.ready) == (3, 1)
    assert [(each.id, need) for each, need in queue.over("b", done=False)] == [("c", "b")]
    assert queue.add(trial(tmp_path, "d", "b")) == "b"
    assert (len(queue), queue.ready) == (2, 1)
