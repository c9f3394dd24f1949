"""One connection: what its target gets of its source."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class TopDown(nn.Module):
    """A source, normalised over all its values, and a 1x1 convolution that begins as zero.

    It works at the size of its source; `spread` brings what it gives to the size of its target.

    Shapes: [B, C_source, h, w] -> [B, C_target, h, w].
    """

    def __init__(self, source: int, target: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, source)
        self.conv = nn.Conv2d(source, target, 1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x))


class Gain(TopDown):
    """``1 + tanh`` of a `TopDown`: between 0 and 2, and 1 where it begins."""

    def forward(self, x: Tensor) -> Tensor:
        return 1 + super().forward(x).tanh()


def spread(value: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """A small map and a large one as two that broadcast: every cell of the small one is a block of the large one.

    Args:
        value: [B, C, h, w].
        like: [B, C, H, W].

    Returns: (value, like), seen as [B, C, h, 1, w, 1] and [B, C, h, H/h, w, W/w] where the sizes divide, else both of
    the size of ``like``, with the nearest cell for every place. `together` undoes it.
    """
    (small_h, small_w), (height, width) = value.shape[-2:], like.shape[-2:]
    if (small_h, small_w) in ((height, width), (1, 1)):
        return value, like
    if height % small_h or width % small_w:
        return F.interpolate(value, (height, width), mode="nearest-exact"), like
    blocks = like.unflatten(-2, (small_h, height // small_h)).unflatten(-1, (small_w, width // small_w))
    return value.unsqueeze(-1).unsqueeze(-3), blocks


def together(value: Tensor) -> Tensor:
    """[B, C, h, H/h, w, W/w] -> [B, C, H, W]; another value stays as it is."""
    return value.flatten(-2).flatten(-3, -2) if value.ndim == 6 else value


class Unintroduced(nn.Module):
    """Stands for a path from logits until the network knows the head behind it."""

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("a path from logits is made when the head is known")
