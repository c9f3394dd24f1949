"""One connection: what its target gets of its source."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Pointwise(nn.Conv2d):
    """A 1x1 convolution, computed as a product of matrices: on small maps in channels-last that takes half the time."""

    def __init__(self, source: int, target: int) -> None:
        super().__init__(source, target, 1)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class TopDown(nn.Module):
    """A source, normalised over all its values, and a 1x1 convolution that begins as zero.

    The normalisation has no weights: they would be factors of those of the convolution. It works at the size of its
    source; `spread` brings what it gives to the size of its target.

    Shapes: [B, C_source, h, w] -> [B, C_target, h, w].
    """

    def __init__(self, source: int, target: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, source, affine=False)
        self.conv = Pointwise(source, target)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x))


class Gain(TopDown):
    """``1 + tanh`` of a `TopDown`: between 0 and 2, and 1 where it begins."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * (2 * super().forward(x)).sigmoid()  # the same, and faster


def spread(value: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """A small map and a large one as two that broadcast: every cell of the small one is a block of the large one.

    Where the sizes divide the small one is made as wide as the large one, and no higher: rows of memory are broadcast
    as a whole, and their gradients summed as a whole, which blocks of a few cells would not be.

    Args:
        value: [B, C, h, w].
        like: [B, C, H, W].

    Returns: (value, like), seen as [B, h, 1, W C] and [B, h, H/h, W C] in channels-last, as [B, C, h, 1, W] and
    [B, C, h, H/h, W] otherwise; where the sizes do not divide both of the size of ``like``, with the nearest cell for
    every place. `together` undoes it.
    """
    (small_h, small_w), (height, width) = value.shape[-2:], like.shape[-2:]
    if (small_h, small_w) in ((height, width), (1, 1)):
        return value, like
    if height % small_h or width % small_w:
        return F.interpolate(value, (height, width), mode="nearest-exact"), like
    times = width // small_w
    if not like.is_contiguous(memory_format=torch.channels_last):
        wide = value.unsqueeze(-1).expand(-1, -1, -1, -1, times).flatten(-2)
        return wide.unsqueeze(3), like.unflatten(2, (small_h, -1))
    wide = value.permute(0, 2, 3, 1).unsqueeze(3).expand(-1, -1, -1, times, -1)
    return wide.flatten(2).unsqueeze(2), like.permute(0, 2, 3, 1).flatten(2).unflatten(1, (small_h, -1))


def together(value: Tensor, like: Tensor) -> Tensor:
    """What `spread` made of maps like ``like``, [B, C, H, W], as one again."""
    if value.shape == like.shape:
        return value
    if value.ndim == 5:
        return value.flatten(2, 3)
    return value.flatten(1, 2).unflatten(2, (like.shape[3], -1)).permute(0, 3, 1, 2)


class Unintroduced(nn.Module):
    """Stands for a path from logits until the network knows the head behind it."""

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("a path from logits is made when the head is known")


def added(value: Tensor, tops: Sequence[Tensor]) -> Tensor:
    """value: [B, C, H, W] and the maps [B, C, h, w] of paths, brought to its size -> their sum, [B, C, H, W]."""
    for top in tops:
        term, blocks = spread(top, value)
        value = together(blocks + term, value)
    return value
