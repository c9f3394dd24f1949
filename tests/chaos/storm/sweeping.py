"""One sweep of a storm: its driver, started again whenever it ended too early."""

from __future__ import annotations

import csv
import random
import subprocess
import sys
from pathlib import Path

from conftest import Engram

SUITE = """
name = "storm"
experiment = "walking.walk"
seeds = {seeds}
[grid]
stride = {strides}
"""
ENOUGH = 12
"""Undisturbed drivers after which a sweep must be done."""


class Sweep:
    """A sweep in a folder of its own; ``uri`` is the tracking server that it tells, None for none."""

    def __init__(self, engram: Engram, name: str, trials: int, uri: str | None) -> None:
        self.engram, self.trials, self.uri = engram, trials, uri
        seeds = 10 if trials % 10 == 0 else 1
        strides = [round(1 + step / 10, 1) for step in range(trials // seeds)]
        self.out = engram.cwd / name
        self.suite = engram.cwd / f"{name}.toml"
        self.suite.write_text(SUITE.format(seeds=seeds, strides=strides))
        self.driver: subprocess.Popen[bytes] | None = None
        self.starts, self.on_ray = 0, False
        self.log = engram.cwd / f"{name}.log"

    def start(self, *more: str) -> None:
        """Start the driver; what it says goes to a file of the sweep's."""
        words = ["sweep", self.suite.name, "--out", self.out.name, *more]
        words += ["--tracking-uri", self.uri] if self.uri else []
        with self.log.open("ab") as log:
            self.driver = subprocess.Popen(
                [sys.executable, "-m", "engram.benchmarks", *words],
                cwd=self.engram.cwd,
                env=self.engram.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.starts += 1
        self.on_ray = "--ray" in words

    def ended(self) -> int | None:
        """The driver's exit code; None while it runs."""
        return None if self.driver is None else self.driver.poll()

    def finish(self, more: tuple[str, ...] = ()) -> None:
        """Run it to its end, with nobody who kills, and tell the tracking server all."""
        for _ in range(ENOUGH):
            if self.driver is None:
                self.start(*more)
            assert self.driver is not None
            code, self.driver = self.driver.wait(), None
            if code == 0:
                break
        else:
            raise AssertionError(f"{self.out.name} does not end; {self.said()}")
        words = ["sync", "--out", self.out.name, *(["--tracking-uri", self.uri] if self.uri else [])]
        done = self.engram(*words)
        assert done.code == 0, done.err
        assert f"{self.trials} trials are in MLflow" in done.out, done.out

    def table(self) -> list[list[str]]:
        """What ``engram compare`` makes of it, without how long it took."""
        path = self.engram.cwd / f"{self.out.name}.csv"
        done = self.engram("compare", "storm", "--out", self.out.name, "--to", path.name)
        assert done.code == 0, done.err
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
        took = rows[0].index("seconds")
        return [row[:took] + row[took + 1 :] for row in rows]

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    def folders(self) -> list[Path]:
        return sorted((self.out / "trials").iterdir())


def launches(rng: random.Random, ray: str) -> tuple[str, ...]:
    """How a driver is started, with the address of a Ray cluster, if any: each way must end with the same tables."""
    where = ("--ray", ray) if ray and rng.random() < 0.5 else ()
    return ("--workers", str(rng.choice((2, 3))), *where)
