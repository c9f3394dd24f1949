"""Values on their way between populations: which populations they come from, and through which affine layers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from engram.snn.lowering.network import Connection


@dataclass(frozen=True)
class Term:
    """A part of a value: what one population sends behind some layers, times a factor for each channel.

    Attributes:
        source: a population's name, or `INPUT`.
        layers: that act on what it sends.
        scale: [C] of the value behind the layers; None: 1. The next layer takes it into its weights.
    """

    source: str
    layers: tuple[nn.Module, ...] = ()
    scale: Tensor | None = None


@dataclass(frozen=True)
class Value:
    """A sum of terms. shape: of one image's value, (C, H, W) or (N,)."""

    shape: tuple[int, ...]
    terms: tuple[Term, ...]

    def through(self, layer: nn.Module, shape: Sequence[int]) -> Value:
        """Behind a Conv2d or a Linear: one bias, however many terms there are."""
        terms = [
            Term(each.source, (*each.layers, _taken(layer, each.scale, n == 0))) for n, each in enumerate(self.terms)
        ]
        return Value(tuple(shape), tuple(terms))

    def behind(self, layer: nn.Module, shape: Sequence[int], places: int = 1) -> Value:
        """Behind a pool or a flattening, which keep channels apart. places: of each channel side by side afterwards."""
        terms = [
            Term(each.source, (*each.layers, copy.deepcopy(layer)), _repeated(each.scale, places))
            for each in self.terms
        ]
        return Value(tuple(shape), tuple(terms))

    def times(self, factor: Tensor) -> Value:
        """factor: [1] or [C], of every channel."""
        factor = factor.expand(self.shape[0])
        terms = [replace(each, scale=factor if each.scale is None else each.scale * factor) for each in self.terms]
        return replace(self, terms=tuple(terms))

    def connections(self) -> tuple[Connection, ...]:
        """A connection for every term, whatever is left of scales as a layer of its own."""
        return tuple(Connection(source=each.source, layers=self._settled(each)) for each in self.terms)

    def _settled(self, term: Term) -> nn.Sequential:
        last = () if term.scale is None else (every_channel(term.scale, None, len(self.shape)),)
        return nn.Sequential(*term.layers, *last).eval()


def every_channel(scale: Tensor, shift: Tensor | None, dims: int) -> nn.Module:
    """The layer that scales every channel by itself, and shifts it.

    Args:
        scale, shift: [C].
        dims: 3 for (C, H, W), 1 for (N,).
    """
    count, biased = len(scale), shift is not None
    options = {"bias": biased, "device": scale.device, "dtype": scale.dtype}
    layer = nn.Conv2d(count, count, 1, groups=count, **options) if dims == 3 else nn.Linear(count, count, **options)
    return _filled(layer, scale.view(-1, 1, 1, 1) if dims == 3 else scale.diag(), shift)


def padded(channels: int, sides: tuple[int, int, int, int], like: Tensor) -> nn.Conv2d:
    """Zeros around a picture as a convolution whose only weight is 1. sides: (left, right, top, bottom), at least 0."""
    left, right, top, bottom = sides
    padding = (max(top, bottom), max(left, right))
    kernel = (2 * padding[0] - top - bottom + 1, 2 * padding[1] - left - right + 1)
    layer = nn.Conv2d(
        channels, channels, kernel, padding=padding, groups=channels, bias=False, device=like.device, dtype=like.dtype
    )
    weight = torch.zeros_like(layer.weight)
    weight[:, :, padding[0] - top, padding[1] - left] = 1
    return _filled(layer, weight, None)


def placed(first: int, count: int, channels: int, dims: int, like: Tensor) -> nn.Module:
    """The layer that puts ``count`` channels among ``channels``, from ``first`` on: a part of a concatenation."""
    rows = torch.zeros(channels, count, dtype=like.dtype, device=like.device)
    rows[first : first + count] = torch.eye(count, dtype=like.dtype, device=like.device)
    options = {"bias": False, "device": like.device, "dtype": like.dtype}
    layer = nn.Conv2d(count, channels, 1, **options) if dims == 3 else nn.Linear(count, channels, **options)
    return _filled(layer, rows[:, :, None, None] if dims == 3 else rows, None)


def _filled(layer, weight: Tensor, bias: Tensor | None):  # noqa: ANN001, ANN202
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer.requires_grad_(False).eval()


@torch.no_grad()
def _taken(layer: nn.Module, scale: Tensor | None, biased: bool) -> nn.Module:
    """A copy of a Conv2d or Linear that takes its inputs times ``scale`` [C]."""
    layer = copy.deepcopy(layer).requires_grad_(False).eval()
    if not biased:
        layer.bias = None  # type: ignore[assignment]
    if scale is not None:
        weight: Tensor = layer.weight  # type: ignore[assignment]
        by_input = scale.view(getattr(layer, "groups", 1), 1, -1)  # [groups, 1, I / groups]
        factor = by_input.expand(-1, len(weight) // len(by_input), -1).flatten(0, 1)
        weight.mul_(factor.view(*factor.shape, *[1] * (weight.ndim - 2)))
    return layer


def _repeated(scale: Tensor | None, places: int) -> Tensor | None:
    return None if scale is None else scale.repeat_interleave(places)
