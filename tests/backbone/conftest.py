"""Small networks, sets and services that all tests of the trunk share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import nn

from backbone.data.sets import MemorySplit
from backbone.registry import Registry


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
