"""Small networks, sets and services that all tests of the trunk share."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from engram.backbone.data.sets import MemorySplit
from engram.backbone.hardware import Machine
from engram.backbone.nets.making import build
from engram.backbone.registry import Registry
from engram.backbone.training.loop import Trainer
from engram.backbone.training.options import TrainingOptions
from engram.backbone.training.preparing import prepare


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def backbone():
    """``backbone(name, in_shape, **options)`` through the registry."""
    registry = Registry.discover()

    def make(name, in_shape, **options):
        return registry.load("backbones", name)(in_shape, registry.options("backbones", name)(**options))

    return make


@pytest.fixture(scope="session")
def randomise():
    """Give every BatchNorm statistics and gains as a trained one has, in place."""

    @torch.no_grad()
    def give(module):
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.2, 3)
                if norm.affine:
                    norm.weight.normal_(1, 0.5)
                    norm.bias.normal_()
        return module

    return give


@pytest.fixture
def blobs():
    """``blobs(n)``: images of three classes that differ in the brightness of their thirds."""

    def make(count=50, shape=(1, 8, 8), classes=3):
        generator = torch.Generator().manual_seed(1)
        labels = torch.arange(count) % classes
        images = torch.randint(0, 100, (count, *shape), generator=generator)
        rows = torch.arange(shape[1]) * classes // shape[1]
        images += 120 * (rows == labels[:, None])[:, None, :, None]
        return MemorySplit(images.to(torch.uint8), labels)

    return make


@pytest.fixture(scope="session")
def plain_options():
    return TrainingOptions(
        epochs=2,
        batch_size=16,
        optimizer="sgd",
        lr=0.05,
        momentum=0.9,
        weight_decay=1e-3,
        schedule="onecycle",
        warmup=0.2,
        label_smoothing=0.0,
        flip="none",
        translate=0,
        cutout=0,
        randaugment=0,
        ema=0.0,
        clip=0.0,
        gradient_checkpointing=False,
        seed=5,
    )


@pytest.fixture
def trainer(blobs, plain_options):
    """``trainer(net, net options, count=..., hooks=..., **recipe)``, the same weights each time."""

    def make(net="lenet5", options=None, count=50, hooks=(), objective=None, sampler=None, precision="fp32", **recipe):
        torch.manual_seed(0)
        split = blobs(count, (1, 10, 10))
        model = build(net, options or {"width": 0.5}, (1, 10, 10), 3, torch.tensor([0.35]), torch.tensor([0.2]))
        prepare(model, split, plain_options.seed)
        return Trainer(
            model, split, replace(plain_options, **recipe), Machine("cpu", precision), objective, sampler, hooks
        )

    return make


@pytest.fixture(scope="session")
def train():
    """``train(trainer, seconds)``: the rows of all epochs; with no seconds every call is one step."""

    def rows(trainer, seconds=1e9):
        found = []
        while not trainer.done:
            row = trainer.advance(seconds)
            if row is not None:
                found.append(row)
        return found

    return rows


@dataclass
class FakeServices:
    """What the runner lends to an experiment, kept in memory."""

    trial_dir: Path
    inputs: Mapping[str, Path] = field(default_factory=dict)
    data_root: Path = Path("nowhere")
    device: str = "cpu"
    download: bool = False
    logged: dict = field(default_factory=dict)
    facts: dict = field(default_factory=dict)

    def log(self, step, metrics):
        self.logged[step] = dict(metrics)

    def progress(self, done, total, text=""):
        assert 0 <= done <= total

    def provenance(self, **facts):
        self.facts |= facts

    def table(self, title, rows):
        pass


@pytest.fixture(scope="session")
def services():
    return FakeServices
