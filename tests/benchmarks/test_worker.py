"""``python -m engram.benchmarks exec TRIAL_DIR``: every way a trial can end."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from engram.backbone.errors import UserError
from engram.backbone.registry import Registry
from engram.backbone.saved.states import save_state
from engram.benchmarks.driving.setting import RunSetting
from engram.benchmarks.driving.writing import write_trial
from engram.benchmarks.planning.plan import Planner, Trial
from engram.benchmarks.records.identity import DataSets
from engram.benchmarks.records.trials import Record
from engram.benchmarks.worker.stopping import Stop
from engram.benchmarks.worker.trial import work

pytestmark = pytest.mark.usefixtures("with_plugins")


@pytest.fixture
def plan(tmp_path) -> Callable[..., Trial]:
    """Write the folder of one trial of counting.count."""

    def count(**options) -> Trial:

        registry = Registry.discover()
        planner = Planner(registry, tmp_path / "runs", DataSets(registry, tmp_path))
        trial = planner.add("counting.count", options)
        write_trial(trial, RunSetting(out=tmp_path / "runs", data_root=tmp_path, argv=["test"]))
        return trial

    return count


@pytest.fixture
def go_on(monkeypatch, capsys) -> Callable[[Trial], str]:
    """Go on with a trial in this process, without its pauses; what it says."""
    import counting.count

    def finish(trial: Trial) -> str:
        capsys.readouterr()
        monkeypatch.setattr(counting.count, "time", SimpleNamespace(sleep=lambda seconds: None))
        assert work(trial.folder, Stop()) == 0
        return capsys.readouterr().out

    return finish


def read(trial, name):
    return json.loads((trial.folder / name).read_text())


def ledger(trial):
    return [(line.name, line.step, line.value) for line in Record(trial.folder).ledger()]


def test_done(engram, plan):
    trial = plan(steps=3, loud=True)
    done = engram("exec", trial.folder)
    assert (done.code, done.out, done.err) == (0, "", "")
    result = read(trial, "result.json")
    assert result["metrics"]["total"] == 3.0
    assert (result["trial"], result["experiment"]) == (trial.id, "counting.count")
    assert result["tables"]["counts"] == [{"n": 3, "total": 3.0}]
    assert result["artifacts"] == {"note": "note.txt"}
    assert result["figures"]["count"]["series"]["count"][1] == [1, 1.0]
    assert "grey" in (trial.folder / "log.txt").read_text()
    assert read(trial, "provenance.json")["facts"] == {"data_sha256": "0" * 64}
    assert read(trial, "provenance.json")["argv"] == ["test"]
    assert not (trial.folder / "ckpt").exists()
    assert engram("exec", trial.folder).code == 0


@pytest.mark.parametrize(
    ("fail", "code", "kind", "said"),
    [
        ("user", 2, "user", "--fail must be never"),
        ("trial", 1, "trial", "loss must be finite"),
        ("crash", 1, "crash", "ZeroDivisionError: on purpose (see "),
        ("nan", 1, "trial", "metric total must be finite; got nan"),
        ("missing", 1, "trial", "metric total must be reported"),
    ],
)
def test_failures(engram, plan, fail, code, kind, said):
    trial = plan(steps=1, fail=fail)
    done = engram("exec", trial.folder)
    error = read(trial, "error.json")
    assert (done.code, error["kind"]) == (code, kind)
    assert said in error["message"]
    assert done.err.count("\n") == 1
    assert not (trial.folder / "result.json").exists()
    assert ("Traceback" in (trial.folder / "log.txt").read_text()) == (kind == "crash")


def test_a_trial_that_was_begun_with_other_data_is_refused(engram, plan):
    trial = plan(steps=1, fail="trial")
    engram("exec", trial.folder)
    provenance = read(trial, "provenance.json")
    del provenance["sha256"]
    (trial.folder / "provenance.json").write_text(json.dumps({**provenance, "facts": {"data_sha256": "1" * 64}}))
    done = engram("exec", trial.folder)
    assert done.code == 2
    assert "data_sha256 must be what the trial was begun with" in done.err


def test_stopped_and_resumed_gives_the_same_numbers(engram, plan, go_on, wait_for):
    trial, whole = plan(steps=60, pause=0.25), plan(steps=60, pause=0.0)
    go_on(whole)
    process = engram.start("exec", trial.folder)
    wait_for(lambda: len(ledger(trial)) >= 4)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    assert process.returncode == 143
    assert list((trial.folder / "ckpt").glob("state-*.pt"))
    assert "resumed at step" in go_on(trial)
    assert read(trial, "result.json")["metrics"] == read(whole, "result.json")["metrics"]
    assert ledger(trial) == ledger(whole)


def test_a_worker_whose_driver_died_stops_by_itself(engram, plan, wait_for):
    trial = plan(steps=500, pause=0.1)
    worker = subprocess.Popen(
        [sys.executable, "-m", "engram.benchmarks", "exec", str(trial.folder)],
        env=engram.environment() | {"ENGRAM_DRIVEN": "1"},
        stdin=subprocess.PIPE,
    )
    wait_for(lambda: len(ledger(trial)) >= 4)
    worker.stdin.close()
    assert worker.wait(timeout=300) == 143
    assert list((trial.folder / "ckpt").glob("state-*.pt"))


@pytest.fixture
def driven(engram) -> Callable[[str], subprocess.Popen]:
    """Run code as a process that a driver might have started, with half a second of grace after the driver's death."""

    def start(code: str) -> subprocess.Popen:
        short = "from engram.benchmarks.worker import stopping\nstopping.GRACE_SECONDS = 0.5\n"
        env = engram.environment() | {"ENGRAM_DRIVEN": "1"}
        return subprocess.Popen([sys.executable, "-c", short + code], env=env, stdin=subprocess.PIPE)

    return start


@pytest.mark.slow
def test_an_orphan_that_gets_no_processor_still_saves_its_work(driven, plan, wait_for):
    """A sleeping step is what one looks like on a busy machine: the clock runs, and no work is done."""
    trial = plan(steps=500, pause=2.0)
    code = "import pathlib, sys, engram.backbone.saved.states, engram.benchmarks.worker.trial\n"
    code += f"folder = pathlib.Path({str(trial.folder)!r})\n"
    worker = driven(code + "sys.exit(engram.benchmarks.worker.trial.main(folder))")
    wait_for(lambda: ledger(trial))
    worker.stdin.close()
    assert worker.wait(timeout=300) == 143
    assert list((trial.folder / "ckpt").glob("state-*.pt"))


@pytest.mark.parametrize("hung", ["while True: pass", "stopping.LONGEST_SECONDS = 0.5\nthreading.Event().wait()"])
def test_an_orphan_that_hangs_leaves(driven, hung):
    worker = driven(f"import threading\nstopping.Stop.install()\n{hung}")
    worker.stdin.close()
    assert worker.wait(timeout=300) == 143


def test_two_workers_never_share_a_folder(engram, plan, wait_for, monkeypatch):
    from engram.benchmarks.records.layout import Busy, lock

    trial = plan(steps=500, pause=0.1)
    first = engram.start("exec", trial.folder)
    wait_for(lambda: ledger(trial))
    assert Record(trial.folder).status == "running"
    with pytest.raises(Busy), lock(trial.folder / "lock", patience=0.2, what="trial"):
        pass
    first.kill()
    first.communicate()
    assert Record(trial.folder).status == "unfinished"
    with lock(trial.folder / "lock", patience=5, what="trial"):
        pass


def test_a_damaged_checkpoint_falls_back_to_the_one_before(engram, plan, go_on, wait_for, caplog):
    trial, whole = plan(steps=200, pause=0.1), plan(steps=200)
    go_on(whole)
    process = engram.start("exec", trial.folder, ENGRAM_CHECKPOINT_SECONDS="0.3")
    wait_for(lambda: len(list((trial.folder / "ckpt").glob("state-*.json"))) >= 2, seconds=300)
    process.kill()
    process.communicate()
    newest = sorted((trial.folder / "ckpt").glob("state-*.json"))[-1].with_suffix(".pt")
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    assert "resumed at step" in go_on(trial)
    assert "is damaged" in caplog.text
    assert read(trial, "result.json")["metrics"] == read(whole, "result.json")["metrics"]
    assert ledger(trial) == ledger(whole)


def test_a_checkpoint_of_another_version_is_the_owners_to_remove(plan, go_on):
    trial = plan(steps=3)
    save_state(trial.folder / "ckpt", 2, {"experiment": [("n", 2, "more")], "seconds": 1.0, "random": {}})
    with pytest.raises(UserError, match="must be of this version of engram; got ValueError: dictionary update"):
        work(trial.folder, Stop())
    shutil.rmtree(trial.folder / "ckpt")
    go_on(trial)


def test_a_wrong_checkpoint_interval_is_the_owners_error(engram, plan):
    done = engram("exec", plan(steps=2).folder, ENGRAM_CHECKPOINT_SECONDS="abc")
    assert done.code == 2
    assert "ENGRAM_CHECKPOINT_SECONDS must be a number of seconds, 0 or more; got abc" in done.err


def test_not_a_trial(engram, tmp_path):
    done = engram("exec", tmp_path)
    assert done.code == 2
    assert "must be a folder with a config.json" in done.err
