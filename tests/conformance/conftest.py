"""Runs real trials in this process, on the smallest settings: what a plugin's author needs to prove a new one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engram.backbone.options import Checker
from engram.backbone.options.schema import by_key
from engram.backbone.registry import Registry
from engram.benchmarks.driving.setting import RunSetting
from engram.benchmarks.driving.writing import write_trial
from engram.benchmarks.planning.config import experiment_config
from engram.benchmarks.planning.plan import Planner, Trial
from engram.benchmarks.records.identity import DataSets
from engram.benchmarks.records.trials import Record
from engram.benchmarks.worker.stopping import Stop
from engram.benchmarks.worker.trial import work

REGISTRY = Registry.discover()
# an option by this name is set to this value wherever an experiment has it
TINY = {"epochs": 2, "backbone": "mlp", "backbone_options": {"width": 0.25}, "steps": 4, "calibration_images": 64}
# what a network is trained on where an experiment has to be given one, if not on digits
TRAINED_ON = {
    "fewshot.one-shot-runs": {"dataset": "PICTURES"},
    "feedback.analyse": {"adapter": ("feedback.gated",)},
}
# where kernels are kept once they are compiled, for all trials
KERNELS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "engram"
_watching: list[tuple[Path, list[str]]] = []


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, nothing is cleaned up."""


class KillAfter(Stop):
    """Dies right after the checkpoint of the given step: the loop asks twice per step, and once more."""

    def __init__(self, steps: int) -> None:
        self._left = 2 * steps

    @property
    def asked(self) -> bool:
        self._left -= 1
        if self._left < 0:
            raise Killed
        return False


class Bench:
    """One output folder in which trials are planned and run. The data set PICTURES is a folder of 16x16 noise."""

    def __init__(self, out: Path, pictures: Path, registry: Registry = REGISTRY) -> None:
        self.out, self.pictures, self.registry = out, pictures, registry
        self.planner = Planner(registry, out, DataSets(registry, out))

    def plan(self, experiment: str, **options) -> Trial:
        """Plan an experiment, made tiny; run what it needs first."""
        cls = experiment_config(self.registry, experiment)
        known = by_key(cls)
        options = {"from" if name == "from_trial" else name: value for name, value in options.items()}
        values = {key: value for key, value in TINY.items() if key in known and not options.get("from")}
        if options.get("dataset") == "PICTURES":
            options["dataset"] = f"folder:{self.pictures}"
        checker = Checker(self.registry, lambda name: name, "")
        given = checker.check(cls, {**values, **options})
        checker.require()
        if cls.resolve(given).problems() and "from" in known:
            trained = self.plan("backbone.train", **TRAINED_ON.get(experiment, {}))
            self.run(trained)
            given[known["from"].field] = trained.id
        trial = self.planner.add(experiment, given)
        trial.folder.mkdir(parents=True, exist_ok=True)
        self._run_needs(trial)
        return trial

    def _run_needs(self, trial: Trial) -> None:
        for need in trial.needs:
            self._run_needs(self.planner.trials[need])
            self.run(self.planner.trials[need])

    def run(self, trial: Trial, stop: Stop | None = None) -> Record:
        write_trial(trial, RunSetting(out=self.out, data_root=self.out, argv=[], device="cpu"))
        if not (trial.folder / "result.json").exists():
            assert work(trial.folder, stop or Stop()) == 0
        return Record(trial.folder)


def numbers(record: Record) -> tuple[dict, list]:
    """Metrics and ledger without wall-clock figures."""
    timed = {metric.name for metric in experiment_config(REGISTRY, record.experiment).metrics if metric.timed}
    metrics = {name: value for name, value in record.metrics.items() if name not in timed}
    return metrics, [(line.name, line.step, line.value) for line in record.ledger() if line.name not in timed]


def _watch(event: str, details: tuple) -> None:
    if not _watching or event not in ("open", "os.mkdir", "os.rename", "os.symlink", "os.link"):
        return
    allowed, found = _watching[-1]
    path, mode, flags = details if event == "open" else (details[0], "w", os.O_WRONLY)
    writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else flags & (os.O_WRONLY | os.O_RDWR)
    if not writes or not isinstance(path, str | bytes | os.PathLike):
        return
    path = Path(os.fsdecode(path)).absolute()
    harmless = path.is_relative_to("/dev") or path.is_relative_to("/proc") or "__pycache__" in path.parts
    harmless = harmless or path.name.startswith("torchinductor_")  # torch makes it in /tmp, whoever uses it
    harmless = harmless or "matplotlib" in path.parts  # captum imports it: the folders of its settings and fonts
    harmless = harmless or path.is_relative_to(KERNELS) or KERNELS.is_relative_to(path)
    if not harmless and not path.is_relative_to(allowed):
        found.append(f"{event} {path}")


sys.addaudithook(_watch)


@contextmanager
def _writes_outside(folder: Path) -> Iterator[list[str]]:
    found: list[str] = []
    _watching.append((folder, found))
    try:
        yield found
    finally:
        _watching.pop()


@pytest.fixture(scope="session")
def writes_outside():
    """Context manager: the list of everything this process writes outside a folder."""
    return _writes_outside


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import numpy as np
    from PIL import Image

    folder, noise = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(80):
        path = folder / ("left" if number % 2 else "right") / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (16, 16), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"), pictures)


@pytest.fixture
def strangers_bench(tmp_path: Path, pictures: Path, with_plugins: None) -> Bench:
    """An empty output folder where the third-party plugins are installed."""
    return Bench(tmp_path / "runs", pictures, Registry.discover())


@pytest.fixture
def other_bench(tmp_path: Path, pictures: Path) -> Bench:
    """A second, empty output folder."""
    return Bench(tmp_path / "other", pictures)


@pytest.fixture(scope="session")
def the_numbers():
    return numbers


@pytest.fixture(scope="session")
def kill_after():
    return KillAfter


@pytest.fixture(scope="session")
def killed() -> type[BaseException]:
    return Killed


@pytest.fixture
def checkpoint_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGRAM_CHECKPOINT_SECONDS", "0")
