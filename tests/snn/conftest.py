"""Networks and fakes that several tests of the spiking package need."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from engram.backbone.data.load import load
from engram.backbone.nets.blocks import Add, StaticBackbone
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.making import build


class Block(nn.Module):
    """A residual block whose two paths meet in front of its neurons."""

    def __init__(self, channels):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.add, self.act = Add(), nn.ReLU()

    def forward(self, x):
        return self.act(self.add(self.branch(x), x))


@pytest.fixture
def exact():
    """Give a module weights that are multiples of 1/4, so that float32 sums of them are exact in any order."""

    def quantise(module, seed=0):
        generator = torch.Generator().manual_seed(seed)
        for parameter in module.parameters():
            values = torch.randint(-2, 4, parameter.shape, generator=generator)
            parameter.data = values.float() / 4
        return module.eval()

    return quantise


@pytest.fixture
def sequential_net(exact):
    stages = [
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
        nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU()),
    ]
    tail = nn.Sequential(nn.Flatten(), nn.Linear(24, 5), nn.ReLU())
    return exact(StaticBackbone((2, 8, 8), stages, tail))


@pytest.fixture
def residual_net(exact):
    stages = [
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU()),
        Block(4),
        nn.Sequential(nn.AvgPool2d(2), Block(4)),
    ]
    return exact(StaticBackbone((2, 8, 8), stages, nn.Sequential(nn.AvgPool2d(4), nn.Flatten())))


@pytest.fixture
def images():
    """[6, 2, 8, 8], multiples of 1/4."""
    return torch.randint(-4, 8, (6, 2, 8, 8), generator=torch.Generator().manual_seed(1)).float() / 4


@pytest.fixture(scope="session")
def quantisation_error():
    """The mean squared error of quantising values [n] to L levels below a threshold, by the formula, in float64."""

    def error(values, threshold, levels):
        step, values = threshold / levels, np.asarray(values, dtype=np.float64)
        return float(np.square(np.clip(np.floor(values / step + 0.5), 0, levels) * step - values).mean())

    return error


@pytest.fixture(scope="session")
def least_quantisation_error(quantisation_error):
    """The least such error of any threshold, by trying a thousand."""

    def least(values, levels):
        return min(
            quantisation_error(values, tried, levels) for tried in np.geomspace(values.max() / 200, values.max(), 1000)
        )

    return least


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    return load("digits", {}, root=tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def trained(digits):
    """A small BatchNorm network that has learned the digits in a few seconds."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build("vgg-tiny", {}, digits.in_shape, 10, digits.mean, digits.std)
        optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
        for _ in range(5):
            for images, labels, _ in digits.train.batches(torch.randperm(len(digits.train)), 64, "cpu"):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images), labels).backward()
                optimizer.step()
    return model.eval()


@pytest.fixture
def classifier_of():
    def wrap(backbone, classes=3):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            head = nn.Linear(backbone.feature_dim, classes)
        channels = backbone.in_shape[0]
        return Classifier(backbone, head, torch.zeros(channels), torch.ones(channels)).eval()

    return wrap


@dataclass
class FakeServices:
    """The services of the runner, kept in memory."""

    trial_dir: Path
    inputs: dict
    device: str = "cpu"
    data_root: Path = Path("nowhere")
    download: bool = False
    logged: list = field(default_factory=list)
    facts: dict = field(default_factory=dict)
    tables: dict = field(default_factory=dict)

    def log(self, step, metrics):
        self.logged.append((step, dict(metrics)))

    def progress(self, done, total, text=""):
        assert 0 < done <= total

    def provenance(self, **facts):
        self.facts |= facts

    def table(self, title, rows):
        self.tables[title] = list(rows)


@pytest.fixture(scope="session")
def services():
    return FakeServices
