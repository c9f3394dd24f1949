"""MLflow locked or gone during a sweep: the sweep ends well, says what is missing, and sync completes it."""

from __future__ import annotations

import socket
import sqlite3
import time

import pytest

from engram.benchmarks.records.trials import Record, trial_names

SUITE = """
experiment = "counting.count"
seeds = 2
[options]
pause = 0.05
steps = 10
"""
LINES = 2 * (10 + 10)


@pytest.fixture
def out(engram):
    (engram.cwd / "small.toml").write_text(SUITE)
    return engram.cwd / "runs"


@pytest.fixture
def locked(out, put_store):
    """The store, held by a connection of ours."""
    holder = sqlite3.connect(put_store(out), isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    yield holder
    holder.close()


def all_done(out):
    return [Record(out / "trials" / trial).status for trial in trial_names(out)] == ["done"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 30])
def test_a_store_locked_for_a_while_is_complete_in_the_end(engram, out, locked, told_once, wait_for, seconds):
    begun = time.monotonic()
    driver = engram.start("sweep", "small.toml", "--workers", "2", "--json")
    wait_for(lambda: all_done(out))  # no trial waits for the store
    time.sleep(max(0.0, begun + seconds - time.monotonic()))
    locked.execute("ROLLBACK")
    _, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, err
    if "not all trials are in MLflow yet" in err:  # a machine so busy that even the patience of the driver ran out
        assert engram("sync").code == 0
    assert told_once(out) == LINES


@pytest.mark.slow
def test_a_store_locked_to_the_end_is_completed_by_sync(engram, out, locked, told_once, wait_for):
    driver = engram.start("sweep", "small.toml", "--workers", "2", "--json")
    wait_for(lambda: all_done(out))
    driver.terminate()  # who does not want to wait for the store need not
    _, err = driver.communicate(timeout=300)
    assert "Traceback" not in err
    failed = engram("sync")
    assert (failed.code, len(failed.complaints)) == (1, 1)
    assert "locked" in failed.err
    locked.execute("ROLLBACK")
    assert engram("sync").code == 0
    assert told_once(out) == LINES


def test_a_dead_server(here, out, told_once):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"  # bound, not listening: refused
        done = here("sweep", "small.toml", "--workers", "2", "--json", "--tracking-uri", uri)
    assert done.code == 0, done.err
    assert [row["status"] for row in done.json["trials"]] == ["done"] * 2
    (complaint,) = done.complaints
    assert "not all trials are in MLflow yet" in complaint
    assert "refused" in complaint or "does not answer" in complaint  # the latter on a very busy machine
    assert f"engram sync --out runs --tracking-uri {uri} completes it" in complaint
    assert here("sync").code == 0
    assert told_once(out) == LINES
