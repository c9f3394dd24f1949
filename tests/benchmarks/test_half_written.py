"""Files that a process had not finished when it was killed: who removes them, and whose they leave alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engram.backbone import atomic
from engram.backbone.atomic import half_written, remove_half_written, write_atomically
from engram.benchmarks.records.layout import prepare
from engram.benchmarks.records.lease import lease
from engram.benchmarks.sink.state import Mark, Memory


@pytest.fixture(scope="module")
def gone() -> int:
    """The number of a process that has ended."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    return ended.pid


def test_a_killed_writer_leaves_what_the_next_one_there_removes(tmp_path):
    code = "import os, pathlib, signal, sys\nfrom engram.backbone import atomic\n"
    code += "atomic.os.fsync = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    code += "atomic.write_atomically(pathlib.Path(sys.argv[1]) / 'result.json', b'new')\n"
    (tmp_path / "result.json").write_bytes(b"old")
    killed = subprocess.Popen([sys.executable, "-c", code, tmp_path])
    assert killed.wait() == -signal.SIGKILL
    assert list(half_written(tmp_path)) == [(tmp_path / f".result.json.{killed.pid}", killed.pid)]
    with lease(tmp_path / "lease", "trial a"):
        pass
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"result.json": b"old"}


def test_only_what_the_dead_left_is_removed(tmp_path, gone):
    kept = [f".b.json.{os.getpid()}", ".b.json.1", ".reserve", ".c", "d.1"]
    left = [f".a.json.{gone}", f".lease.{gone}.0a1b2c3d", f".x.json.{gone}.tmp"]
    for name in (*kept, *left):
        (tmp_path / name).touch()
    (tmp_path / f".folder.{gone}").mkdir()
    remove_half_written(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, f".folder.{gone}"}
    remove_half_written(tmp_path / "nowhere")


def test_whoever_is_taken_for_dead_on_another_machine_writes_again(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_lives", lambda process: False)
    real = os.fsync

    def swept(file):
        real(file)
        remove_half_written(tmp_path)

    monkeypatch.setattr(os, "fsync", swept)
    with pytest.raises(FileNotFoundError):  # the second time it is no other machine
        write_atomically(tmp_path / "kept", b"new")
    monkeypatch.setattr(os, "fsync", lambda file: (swept(file), monkeypatch.setattr(os, "fsync", real)))
    write_atomically(tmp_path / "kept", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("kept", b"new")]


def test_each_folder_has_somebody_who_removes_it(tmp_path, gone):
    """Of a trial its worker, of a sweep its driver, of the output folder any driver, of what is told whoever tells."""
    trial, sweep = tmp_path / "trials" / "a", tmp_path / "sweeps" / "s"
    places = [tmp_path, sweep, trial, trial / "model"]
    somebodys = tmp_path / f".profile.{gone}"  # the output folder may be a home
    somebodys.touch()
    for place in places:
        place.mkdir(parents=True, exist_ok=True)

    def leave() -> None:
        for place in places:
            (place / f".sink.json.{gone}").touch()

    def left() -> set[Path]:
        return {place for place in places if any(place.glob(".sink.*"))}

    for folder in (trial, sweep):
        leave()
        with lease(folder / "lease", "it"):
            assert not left() & {place for place in places if place.is_relative_to(folder)}
    leave()
    prepare(tmp_path)
    assert left() == {sweep, trial, trial / "model"}
    elsewhere = trial / f".result.json.{gone}"  # by a worker on another machine, as far as a teller knows
    elsewhere.touch()
    Memory(trial / "sink.json", "here").save(Mark())
    assert left() == {sweep, trial / "model"} and elsewhere.exists()
    assert somebodys.exists()
