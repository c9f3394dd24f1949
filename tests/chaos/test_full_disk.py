"""A disk that fills up under a driver: one line that says so, nothing is lost, and the same command goes on."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time

import pytest

from engram.benchmarks.records.search import Told, read_events
from engram.benchmarks.records.trials import Record, trial_names

SUITE = 'experiment = "counting.count"\nseeds = 3\n[options]\nsteps = 20\npause = 0.03\n'
SEARCH = """
experiment = "counting.count"
seeds = 1
[options]
steps = 20
pause = 0.03
[search]
method = "random"
objective = "total"
trials = 3
[search.space]
stride = { low = 0.5, high = 20.0 }
"""
LACK = "must be one with room for what is written there; got No space left on device. "


@pytest.fixture
def disk(here, put_store):
    """``runs``, on a disk of 4 MiB of its own that ``fill`` leaves no room on and ``free`` some."""
    out = here.cwd / "runs"
    out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", out], capture_output=True).returncode:
        pytest.skip("only root may mount a disk")

    class Disk:
        def fill(self) -> None:
            with (out / "ballast").open("ab", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * 4096)

        def free(self) -> None:
            (out / "ballast").unlink()

        def fill_when(self, pattern: str) -> threading.Thread:
            def wait() -> None:
                deadline = time.monotonic() + 60
                while not list(out.glob(pattern)) and time.monotonic() < deadline:
                    time.sleep(0.005)
                self.fill()

            thread = threading.Thread(target=wait)
            thread.start()
            return thread

    try:
        put_store(out)
        yield Disk()
    finally:
        subprocess.run(["umount", "-l", out], check=True)


def test_a_disk_that_is_full_from_the_beginning(here, disk):
    (here.cwd / "small.toml").write_text(SUITE)
    disk.fill()
    done = here("sweep", "small.toml")
    assert (done.code, done.out, len(done.complaints)) == (1, "", 1), done.err
    assert f"engram: the disk of {here.cwd / 'runs' / 'sweeps' / 'small'} {LACK}" in done.err
    disk.free()
    assert [record.status for record in _records(here)] == []


@pytest.mark.parametrize("text", [SUITE, SEARCH], ids=["grid", "search"])
def test_a_disk_that_fills_up_in_the_middle(here, disk, text):
    """Trials end with their reason, no further one is tried, and one line says why."""
    (here.cwd / "small.toml").write_text(text)
    filling = disk.fill_when("trials/*/metrics.jsonl")
    done = here("sweep", "small.toml", "--json")
    filling.join()
    assert (done.code, done.err.count("started"), done.err.count("No space left")) == (1, 1, 1), done.err
    assert done.complaints[0].startswith(f"engram: the disk of {here.cwd / 'runs' / 'trials'}{os.sep}"), done.err
    assert done.err.endswith("0 of 3 trials done; the same command goes on\n")
    disk.free()
    assert {record.status for record in _records(here)} <= {"failed", "planned"}
    done = here("sweep", "small.toml", "--json")
    assert done.code == 0, done.err
    assert [row["status"] for row in done.json["trials"]] == ["done"] * 3
    for row in done.json["trials"]:
        assert row["metrics"]["total"] == pytest.approx(20 * row["options"].get("stride", 1.0) + row["seed"])
        assert len(Record(here.cwd / "runs" / "trials" / row["trial"]).ledger()) == 40
    if text == SEARCH:
        events, _, lost = read_events(here.cwd / "runs" / "sweeps" / "small" / "search.jsonl")
        assert not lost
        assert sum(isinstance(event, Told) for event in events) == 3


def _records(here):
    return [Record(here.cwd / "runs" / "trials" / trial) for trial in trial_names(here.cwd / "runs")]
