"""The width at which a network without feedback is as large, or as expensive, as one with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import Named, Row
from engram.backbone.data.load import Data
from engram.backbone.errors import must
from engram.backbone.measures.flops import flops_per_image, parameter_count
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.making import LINEAR, build
from engram.feedback.adapters.equilibrium import exhausting
from engram.feedback.robustness.control_configs import Match

GRID = 256
"""Widths that are tried are multiples of one part in so many."""
WIDEST = 64
"""The largest width that options of networks allow."""
INSTEAD = ("units",)
"""Options that say in place of a width how large a network is."""
SHOWN = 16
"""Images on which operations are counted."""


@dataclass(frozen=True)
class Size:
    """How large a network is, and how many operations it computes for an image."""

    parameters: int
    flops: float

    def of(self, match: Match) -> float:
        """The number that a control has in common with it."""
        return float(self.parameters) if match == "parameters" else self.flops


@dataclass(frozen=True)
class Found:
    """The width of a control, and how it was found.

    Attributes:
        width: that comes closest.
        wanted: the network with feedback.
        below, above: the widths next to it, and what they come to; None where there is none.
    """

    match: Match
    width: float
    wanted: Size
    below: tuple[float, Size] | None
    above: tuple[float, Size] | None

    def mismatch(self, size: Size) -> float:
        """`mismatch` in what is matched."""
        return mismatch(self.match, size, self.wanted)

    def rows(self) -> list[Row]:
        """The network with feedback, and the widths closest to it from both sides."""
        sizes = [("with feedback", None, self.wanted)]
        for name, each in (("control below", self.below), ("control above", self.above)):
            sizes += [] if each is None else [(name, *each)]
        return [
            {
                "network": name,
                "width": width,
                "parameters": size.parameters,
                "flops_per_image": size.flops,
                "mismatch (%)": self.mismatch(size),
                "chosen": width == self.width,
            }
            for name, width, size in sizes
        ]


def mismatch(match: Match, size: Size, wanted: Size) -> float:
    """By how many per cent a network is larger than wanted, or smaller where it is below 0."""
    return 100 * (size.of(match) / wanted.of(match) - 1)


def shown(data: Data, device: str = "cpu") -> Tensor:
    """The training images on which operations are counted."""
    images, _, _ = next(iter(data.train.batches(torch.arange(min(SHOWN, len(data.train))), SHOWN, device)))
    return images


def measured(model: Classifier, images: Tensor) -> Size:
    """images: [N, C, H, W] or [N, T, C, H, W] uint8, on which operations are counted."""
    return Size(parameter_count(model), flops_per_image(model, images))


def at_most(model: Classifier, images: Tensor) -> Size:
    """As `measured`, of a network that stops when it has settled in all its steps: what its control is matched to.

    How soon a trained one settles is not known before it is trained, and a fresh one, whose feedback changes nothing,
    settles at once. So the control computes no less than the network ever does, and gains err against feedback.
    """
    with exhausting(model):
        return measured(model, images)


def size_of(
    backbone: str, options: Mapping[str, Any], adapters: Sequence[Named], data: Data, head: Named | None
) -> Size:
    """Of a network as it is made for some data, at most; nothing random is drawn from the global generators."""
    with torch.random.fork_rng([]):
        model = build(
            backbone, options, data.in_shape, len(data.classes), data.mean, data.std, head or LINEAR, adapters
        )
    return at_most(model, shown(data))


def at_width(options: Mapping[str, Any], width: float) -> dict[str, Any]:
    """The options of a network at another width."""
    return {**{name: value for name, value in options.items() if name not in INSTEAD}, "width": width}


def find_width(match: Match, wanted: Size, sized: Callable[[float], Size]) -> Found:
    """The width whose network comes closest to a size.

    Args:
        match: what is to be the same.
        wanted: the network with feedback.
        sized: how large the network is at a width; what is matched never falls while the width rises.

    Raises:
        UserError: no width comes as far.
    """
    sizes: dict[int, Size] = {}

    def value(places: int) -> float:
        if places not in sizes:
            sizes[places] = sized(places / GRID)
        return sizes[places].of(match)

    low, high, target = 0, GRID, wanted.of(match)
    while value(high) < target:
        low, high = high, 2 * high
        if high > WIDEST * GRID:
            rule = f"one that a --backbone.width up to {WIDEST} can match"
            raise must(f"the {match} of a network with feedback", rule, f"{target:,.0f}", "Leave controls out.")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if value(middle) >= target else (middle, high)
    below, above = ((places / GRID, sizes[places]) if places in sizes else None for places in (low, high))
    assert above is not None  # it was measured
    near = [each for each in (above, below) if each is not None]
    width, _ = min(near, key=lambda each: abs(each[1].of(match) - target))
    return Found(match, width, wanted, below, above)
