"""A full disk, and workers that die with something to say."""

from __future__ import annotations

import errno
import json
import os
import resource
from pathlib import Path
from types import SimpleNamespace

import pytest

from engram.backbone.atomic import write_atomically
from engram.backbone.errors import TrialError
from engram.backbone.registry import Registry
from engram.backbone.saved.states import save_state
from engram.benchmarks.driving.endings import failure
from engram.benchmarks.driving.launch.contract import Ended, Resources
from engram.benchmarks.driving.launch.local import LocalLauncher
from engram.benchmarks.driving.setting import RunSetting
from engram.benchmarks.driving.writing import write_trial
from engram.benchmarks.planning.plan import Planner
from engram.benchmarks.records.identity import DataSets
from engram.benchmarks.worker import ledger, trial
from engram.benchmarks.worker.disk import FULL, has_room, no_room, reserve, trouble
from engram.benchmarks.worker.stopping import Stop

ROOM = "must be one with room for what is written there; got "
REMEDY = "Free some, or raise the limit on its files: then the same command goes on."


@pytest.fixture
def counted(tmp_path, with_plugins):
    """The planned trial of a count."""

    registry = Registry.discover()
    planner = Planner(registry, tmp_path / "runs", DataSets(registry, tmp_path))
    planned = planner.add("counting.count", {"steps": 2})
    write_trial(planned, RunSetting(out=tmp_path / "runs", data_root=tmp_path, argv=[]))
    return planned


def no_space(*args, **named):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def short_files():
    """What is run now may write no file beyond 8 MiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 * 2**20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_may_not_grow(here, put_store, short_files):
    """A checkpoint that meets a limit leaves nothing behind; who waits for it hears why, and the log has more."""
    put_store(here.cwd / "runs")
    done = here("run", "counting.count", "--fail", "disk", "--out", "runs", ENGRAM_CHECKPOINT_SECONDS="0")
    (folder,) = (here.cwd / "runs" / "trials").iterdir()
    said = f"the disk of {folder} {ROOM}File too large. {REMEDY}"
    assert (done.code, done.out) == (1, "")
    assert f"engram: trial {folder.name} failed: {said}" in done.complaints
    error = json.loads((folder / "error.json").read_text())
    assert (error["kind"], error["message"]) == ("disk", said)
    log = (folder / "log.txt").read_text()
    assert "Traceback" in log and "save_state" in log and "File too large" in log
    kept = {"config.json", "launch.json", "provenance.json", "error.json", "log.txt", "metrics.jsonl", "lock"}
    assert {path.name for path in folder.iterdir()} - {"sink.json", "progress.json"} == {*kept, "ckpt"}
    assert list((folder / "ckpt").iterdir()) == []


@pytest.mark.parametrize("for_its_reason", [True, False])
def test_a_disk_without_room_for_a_line(counted, monkeypatch, capfd, for_its_reason):
    monkeypatch.setattr(ledger, "os", SimpleNamespace(**{**vars(os), "write": no_space}))
    if not for_its_reason:
        monkeypatch.setattr(trial, "write_json", no_space)
        with pytest.raises(OSError, match="No space left"):  # `main` ends with the code that says it
            trial._guarded(counted.folder, Stop(), 2, None)
        return
    assert trial._guarded(counted.folder, Stop(), 2, None) == FULL
    error = json.loads((counted.folder / "error.json").read_text())
    assert error["kind"] == "disk" and f"{ROOM}No space left on device" in error["message"]
    assert "in log" in capfd.readouterr().err


def test_what_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "kept").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(tmp_path / "kept", b"new")
    assert caught.value.filename == str(tmp_path / "kept")
    with pytest.raises(OSError, match="No space left"):
        save_state(tmp_path / "ckpt", 3, {"a": 1})
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["kept"]
    assert (tmp_path / "kept").read_bytes() == b"old" and list((tmp_path / "ckpt").iterdir()) == []


def test_the_room_for_last_words_is_there_until_it_is_needed(tmp_path):
    with reserve(tmp_path):
        (held,) = tmp_path.iterdir()
        assert held.stat().st_size >= 2**16
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_found_behind_other_errors():
    lack = OSError(errno.EDQUOT, "Disk quota exceeded")
    try:
        try:
            raise lack
        except OSError as error:
            raise TrialError("could not save") from error
    except TrialError as error:
        assert no_room(error) is lack
    assert no_room(OSError(errno.ENOENT, "none")) is None
    assert no_room(ValueError()) is None


def test_what_cannot_be_written_is_told_from_other_trouble(tmp_path):
    said, code = trouble(OSError(errno.ENOSPC, "No space left", str(tmp_path / "plan.json")))
    assert (said, code) == (f"the disk of {tmp_path} {ROOM}No space left. {REMEDY}", 1)
    said, code = trouble(OSError(errno.EROFS, "Read-only file system", "runs/lock"))
    rule = "runs/lock must be readable and writable here; got Read-only file system. "
    assert (said, code) == (f"{rule}Change that, or choose another --out: then the same command goes on.", 2)
    assert trouble(PermissionError(errno.EACCES, "of a socket")) == ("", 0)
    assert trouble(FileNotFoundError(errno.ENOENT, "none", "x")) == ("", 0)
    assert has_room(tmp_path) and not has_room(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def said_of(planned, code, words="", *, forced=False):
    """What a driver says of a worker that ended so."""
    found = failure(planned, Ended(code, words), forced=forced)
    return found.kind, found.message


def another(site: Path, monkeypatch, code: str) -> None:
    """Workers run ``code`` in place of the runner from now on."""
    (site / "engram").mkdir()
    (site / "engram" / "__init__.py").touch()
    (site / "engram" / "benchmarks.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(site))


def test_a_worker_that_dies_at_an_import_says_why(counted, tmp_path, monkeypatch, wait_for):
    another(tmp_path, monkeypatch, "raise ImportError('broken on purpose')\n")
    (counted.folder / "log.txt").write_text("RuntimeError: an earlier attempt\n")
    local = LocalLauncher(1)
    local.start(counted.folder, Resources())
    found = {}
    wait_for(lambda: found.update(local.finished()) or found)
    log = counted.folder / "log.txt"
    told = f"its process ended with 1: ImportError: broken on purpose (see {log})"
    assert said_of(counted, 1, found[counted.folder].words) == ("crash", told)
    assert "Traceback" in log.read_text()


def test_what_ended_a_worker_is_said(counted):
    kind, said = said_of(counted, FULL)  # and there was not even room for its reason
    assert (kind, said.startswith(f"the disk of {counted.folder} {ROOM}No space left on device")) == ("disk", True)
    assert said_of(counted, 3) == ("crash", "its process ended with 3: it said nothing")
    assert said_of(counted, -9)[1] == "its process was ended by SIGKILL (out of memory?); the same command resumes it"
    log = counted.folder / "log.txt"
    assert said_of(counted, -11)[1] == f"its process was ended by SIGSEGV (see {log}); the same command resumes it"
    said = "it was asked to stop twice, and killed in the middle of its work; the same command resumes it"
    assert said_of(counted, -9, forced=True) == ("killed", said)
    assert said_of(counted, -11, forced=True)[1].startswith("its process was ended by SIGSEGV")
    assert said_of(counted, None, "node 3 is gone") == ("lost", "node 3 is gone; the same command resumes it")


def test_a_worker_that_is_there_when_its_launcher_is_closed_is_let_go(counted, tmp_path, monkeypatch, wait_for):
    another(
        tmp_path, monkeypatch, "import pathlib, sys\nsys.stdin.read()\npathlib.Path(sys.argv[-1], 'left').touch()\n"
    )
    local = LocalLauncher(1)
    local.start(counted.folder, Resources())
    worker = local._running[counted.folder].worker
    local.close()
    wait_for(lambda: worker.over() is not None)
    assert (counted.folder / "left").exists()


def test_one_trial_of_several_is_killed(counted, tmp_path, monkeypatch, wait_for):
    another(tmp_path, monkeypatch, "import time\ntime.sleep(600)\n")
    sleeper = tmp_path / "sleeper"
    sleeper.mkdir()
    local = LocalLauncher(2)
    local.start(counted.folder, Resources())
    local.start(sleeper, Resources())
    assert local.free() == 0
    local.kill(frozenset((sleeper,)))
    found = {}
    wait_for(lambda: found.update(local.finished()) or found)
    assert (found, local.free()) == ({sleeper: Ended(-9)}, 1)
    local.kill()
    wait_for(lambda: found.update(local.finished()) or len(found) == 2)
