"""What things are tried on: two small networks, a few images, and the options that make everything small."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from engram.backbone.contract import Entry, Named
from engram.backbone.nets.making import LINEAR

M = TypeVar("M")
SHAPE = (1, 12, 12)
CLASSES = 6
"""Enough to deal out: two each to train, choose and test on."""
NETWORKS: Mapping[str, Mapping[str, Any]] = {"mlp": {"units": 12, "depth": 1}, "vgg-tiny": {"width": 0.5}}
"""One without normalisation whose only stage is the picture, and one of three convolutions with BatchNorm."""
SMALL: Mapping[str, Any] = {
    "backbone": "mlp",
    "backbone_options": NETWORKS["mlp"],
    "epochs": 2,
    "batch_size": 32,
    "validation": 0.3,
    "steps": 4,
    "calibration_images": 32,
    "tasks": 2,
    "buffer": 8,
    "base_classes": 2,
    "ways": "2",
    "queries": 2,
    "episodes": 10,
    "train_queries": 2,
    "train_episodes": 3,
}
"""Options of experiments by field: what is not named here is as it is by default."""
THIN = {"width": 0.125}
"""Options of networks, where they have them."""


@dataclass(frozen=True)
class Things:
    """What a classifier is made of. ``made_by`` is the entry of what made the network: the last adapter's, if any."""

    backbone: Named
    made_by: Entry
    adapters: tuple[Named, ...] = ()
    head: Named = field(default=LINEAR)


def images(count: int = 6) -> Tensor:
    """``[count, C, H, W]`` normalised, the same ones every time."""
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(7))


def seeded(make: Callable[[], M], seed: int = 0) -> M:
    """What is made with the global generators in a known state."""
    torch.manual_seed(seed)
    return make()
