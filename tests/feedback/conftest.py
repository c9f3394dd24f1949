"""Small networks with feedback, of made-up weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from engram.backbone.nets.making import build
from engram.backbone.options import in_full
from engram.backbone.registry import Registry

SHAPE, CLASSES = (2, 8, 8), 3


@pytest.fixture(scope="session")
def made() -> Callable[..., Any]:
    """``made(adapter, backbone="vgg-tiny", **options)``: a classifier, always of the same weights where it can be."""

    def make(adapter: str | None, backbone: str = "vgg-tiny", **options: Any) -> Any:
        registry = Registry.discover()
        adapters = [] if adapter is None else [in_full(registry, "adapters", adapter, options)]
        torch.manual_seed(0)
        mean, std = torch.zeros(SHAPE[0]), torch.ones(SHAPE[0])
        return build(backbone, {}, SHAPE, CLASSES, mean, std, adapters=adapters).eval()

    return make


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1))
