"""Streams run in this process: whole, or broken off anywhere and resumed from what a checkpoint holds."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from engram.backbone.options import Checker
from engram.backbone.registry import Registry
from engram.continual.experiment.configs import StreamConfig
from engram.continual.experiment.experiment import StreamExperiment


class Services:
    """What the runner offers, gathered instead of written."""

    download, inputs = False, {}

    def __init__(self, folder: Path, device: str) -> None:
        self.device = device
        self.trial_dir, self.data_root = folder, folder / "none"
        self.logged, self.tables = [], []

    def log(self, step, metrics):
        self.logged.append((step, dict(metrics)))

    def progress(self, done, total, text=""):
        pass

    def provenance(self, **facts):
        pass

    def table(self, title, rows):
        self.tables.append((title, rows))


class Run:
    """A stream that has been learned. ``model`` and ``strategies`` are those of its end."""

    def __init__(self, experiment, state) -> None:
        self.experiment, self.state = experiment, state
        self.result = experiment.finish(state)
        self.metrics, self.model, self.strategies = self.result.metrics, state.model, state.strategies

    @property
    def accuracy(self) -> float:
        return self.metrics["test/average_accuracy"]

    @property
    def measured(self) -> dict:
        """The tables of the result but for those that tell of the strategies themselves, whatever came out."""
        return {title: rows for title, rows in self.result.tables.items() if title not in ("cautions", "penalties")}

    def weights(self) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])


SMALL = {"tasks": 3, "epochs": 5, "batch_size": 32, "backbone_options": {"width": 0.25}}


STRENGTHS = {"si.c": 0.1, "ewc.strength": 1000.0, "mas.strength": 1.0}
"""Where a test does not say: choosing them takes longer than most tests."""
NETWORKS = {
    "dense": {"backbone": "mlp", "backbone_options": {"units": 64}},
    "residual": {"backbone": "resnet-tiny", "backbone_options": {"width": 0.25}},
    "spiking": {
        "backbone": "vgg-tiny",
        "backbone_options": {"width": 0.25},
        "adapter": "snn.spiking",
        "adapter_options": {"steps": 2},
    },
    "recurrent": {
        "backbone": "vgg-tiny",
        "backbone_options": {"width": 0.25},
        "adapter": "feedback.gated",
        "adapter_options": {"steps": 2},
    },
}


@pytest.fixture
def networks():
    """Options of networks that no strategy has heard of, by name."""
    return NETWORKS


def experiments_in(folder):
    def make(*strategies, device="cpu", **options):
        torch.manual_seed(options.get("seed", 0))
        names = tuple(name if "." in name or ":" in name else f"continual.{name}" for name in strategies)
        options = {key: value for key, value in {**SMALL, **options}.items() if value is not None}
        strengths = {key: value for key, value in STRENGTHS.items() if f"continual.{key.partition('.')[0]}" in names}
        options["strategies_options"] = {**strengths, **options.get("strategies_options", {})}
        checker = Checker(Registry.discover(), lambda name: name, "")
        given = checker.check(StreamConfig, {"strategies": names or ("continual.finetune",), **options})
        checker.require()
        config = StreamConfig.resolve(given)
        assert not config.problems()
        return StreamExperiment(config, Services(folder, device))

    return make


def learn_whole(ours):
    state = ours.start()
    while ours.step(state):
        pass
    return Run(ours, state)


@pytest.fixture
def experiment(tmp_path):
    """``experiment("si", "er", scenario=..., **options)`` on digits: three tasks of five epochs unless said."""
    return experiments_in(tmp_path)


@pytest.fixture
def learn(experiment):
    """Learn a whole stream: ``learn("si", "er", scenario=..., **options)`` -> `Run`."""
    return lambda *strategies, **options: learn_whole(experiment(*strategies, **options))


@pytest.fixture(scope="session")
def learned(tmp_path_factory):
    """As ``learn``, but what was learned already by the same words is given again: only for tests that change nothing,
    neither of the run nor of how it is made.
    """
    runs = {}

    def run(*strategies, **options):
        words = repr((strategies, sorted(options.items())))
        if words not in runs:
            runs[words] = learn_whole(experiments_in(tmp_path_factory.mktemp("learned"))(*strategies, **options))
        return runs[words]

    return run


@pytest.fixture
def resume(experiment):
    """As ``learn``, but broken off after ``steps`` optimizer steps and gone on with by a fresh process's objects."""

    def run(steps, *strategies, **options):
        first = experiment(*strategies, **options)
        state = first.start()
        for _ in range(steps):
            assert first.step(state, 0.0)
        file = io.BytesIO()
        torch.save(first.state_dict(state), file)
        file.seek(0)
        second = experiment(*strategies, **options)
        torch.manual_seed(999)  # what a fresh process has drawn must not matter
        state = second.start()
        second.load_state_dict(state, torch.load(file, weights_only=True))
        while second.step(state):
            pass
        return Run(second, state)

    return run
