"""SIGKILL in the middle of a task, or while a strength is chosen: the same command again ends with the figures of a run
that nothing happened to."""

from __future__ import annotations

import json

import pytest

TIMED = ("seconds_per_iteration", "train_seconds", "choosing_seconds")
WORDS = ("run", "continual.stream", "--strategies", "si,er", "--scenario", "class", "--tasks", "2", "--json")
LONG = ("--buffer", "50", "--lr", "0.003", "--iterations")


def figures(done) -> dict:
    assert done.code == 0, done.err
    found = done.json
    return {"tables": found["tables"], **{name: x for name, x in found["metrics"].items() if name not in TIMED}}


@pytest.mark.parametrize(
    ("strength", "iterations", "shares"), [("0.1", 1000, (0.3, 1.3)), ("auto", 200, (0.4, 2.5, 8.3))]
)
def test_a_killed_stream(engram, wait_for, workers_in, kill_hard, strength, iterations, shares):
    words = (*WORDS, "--strategies.si.c", strength, *LONG, str(iterations))
    whole = figures(engram(*words, "--out", "whole"))
    out = engram.cwd / "broken"
    for share in shares:
        driver = engram.start(*words, "--out", "broken", ENGRAM_CHECKPOINT_SECONDS="0.3")

        def beyond(share=share) -> bool:
            for path in out.glob("trials/*/progress.json"):
                return json.loads(path.read_text())["done"] > share
            return False

        wait_for(lambda: beyond() and workers_in(out), seconds=120)
        for victim in workers_in(out):
            kill_hard(victim)
        kill_hard(driver.pid)
        driver.communicate(timeout=60)
        wait_for(lambda: not workers_in(out), seconds=60)
        assert not list(out.glob("trials/*/result.json"))
    assert figures(engram(*words, "--out", "broken")) == whole
