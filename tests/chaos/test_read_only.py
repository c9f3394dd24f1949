"""A folder that may only be read: finished trials in it are shown as ever, and whoever would write is told at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

WITHOUT = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
"""The beginning of a command that asks for permission as everybody has to, root too."""


@pytest.fixture
def sealed(here, put_store):
    """The output folder of a finished sweep, which nobody may write to."""
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and there is no setpriv")
    out = here.cwd / "runs"
    put_store(out)
    (here.cwd / "small.toml").write_text('experiment = "counting.count"\nseeds = 2\n')
    assert here("sweep", "small.toml", "--workers", "2").code == 0
    folders = [out, *(path for path in out.rglob("*") if path.is_dir())]
    files = [path for path in out.rglob("*") if path.is_file()]
    for path in (*files, *folders):
        path.chmod(path.stat().st_mode & ~0o222)
    yield out
    for path in folders:
        path.chmod(0o755)


@pytest.fixture
def as_everybody(engram):
    """Run engram with the permissions that everybody has."""

    def run(*words):
        command = [*(WITHOUT if os.geteuid() == 0 else []), sys.executable, "-m", "engram.benchmarks", *words]
        done = subprocess.run(command, cwd=engram.cwd, env=engram.environment(), capture_output=True, text=True)
        complaints = [line for line in done.stderr.splitlines() if line.startswith("engram: ")]
        return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr, complaints=complaints)

    return run


def test_a_folder_that_may_only_be_read(here, sealed, as_everybody):
    expected = {words: here(*words) for words in (("status",), ("compare", "small"))}
    before = {path: path.stat().st_mtime_ns for path in sealed.rglob("*")}
    for words, told in expected.items():
        done = as_everybody(*words)
        assert (done.code, done.out, done.complaints) == (0, told.out, []), done.err
    done = as_everybody("sweep", "small.toml")
    said = f"--out must be a folder that can be written; got {sealed.name} (Permission denied). Choose another one."
    assert (done.code, done.out, done.complaints) == (2, "", [f"engram: {said}"])
    done = as_everybody("sync")
    said = f"what MLflow is told must be on a disk that can be written; got Permission denied: {sealed}/.sink.lock."
    remedy = "Copy the folder to where you may write."
    assert (done.code, done.out, done.err) == (1, "", f"engram: MLflow is not complete: {said} {remedy}\n")
    assert {path: path.stat().st_mtime_ns for path in sealed.rglob("*")} == before


def test_commands_that_would_write_there_say_so_in_one_line(here, sealed, as_everybody):
    """Whoever works in a trial, too, and however deep it is that may not be written."""
    (folder, _) = sorted((sealed / "trials").iterdir())
    forbidden = "must be readable and writable here; got Permission denied. Change that, or choose another --out: "
    done = as_everybody("exec", folder)
    assert (done.code, done.out, done.err) == (
        2,
        "",
        f"{folder / 'lock'} {forbidden}then the same command goes on.\n",
    )
    sealed.chmod(0o755)
    (here.cwd / "small.toml").write_text('experiment = "counting.count"\nseeds = 3\n')
    for words, path, code in (
        (("sweep", "small.toml"), "sweeps/small/lock", 2),
        (("run", "counting.count", "--seed", "7"), "trials/", 1),
    ):
        done = as_everybody(*words)
        assert (done.code, done.out, len(done.complaints)) == (code, "", 1), done.err
        assert done.complaints[0].startswith(f"engram: {sealed / path}"), done.err
        assert forbidden in done.err and "Traceback" not in done.err
    done = as_everybody("clean", "--yes")
    assert (done.code, "Traceback" in done.err) == (0, False), done.err
