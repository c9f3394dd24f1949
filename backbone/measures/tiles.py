"""Small maps as pictures, in rows and columns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.measures.confusions import as_picture

TILE, GAP = 48, 3
"""Pixels of a map, and between two."""
_PAPER = 255
_LESS, _MORE = torch.tensor([33, 102, 172.0]), torch.tensor([178, 24, 43.0])
"""The colours of what is far below, and far above, what changes nothing."""


def shown(image: Tensor) -> Tensor:
    """image: [1 or 3, H, W], uint8 or between 0 and 1 -> a tile [TILE, TILE, 3] uint8."""
    return large(_coloured(image))


def grey(value: Tensor) -> Tensor:
    """value: [H, W] between 0 and 1 -> a tile [TILE, TILE, 3] uint8."""
    return large((value.cpu().clamp(0, 1) * 255).round().to(torch.uint8).unsqueeze(-1).expand(-1, -1, 3))


def diverging(value: Tensor) -> Tensor:
    """value: [H, W] between -1 and 1 -> a tile [TILE, TILE, 3] uint8: blue below 0, white there, red above."""
    value = value.float().cpu().clamp(-1, 1).unsqueeze(-1)
    end = torch.where(value < 0, _LESS, _MORE)
    return large((_PAPER + (end - _PAPER) * value.abs()).round().to(torch.uint8))


def overlaid(image: Tensor, value: Tensor) -> Tensor:
    """A picture in grey under colours: blue below 0, none there, red above.

    image: [1 or 3, H, W], uint8 or between 0 and 1; value: [H, W] between -1 and 1 -> a tile [TILE, TILE, 3] uint8.
    """
    below = _coloured(image).float().mean(-1, keepdim=True)
    value = value.float().cpu().clamp(-1, 1).unsqueeze(-1)
    share = value.abs().sqrt() * 0.8
    end = torch.where(value < 0, _LESS, _MORE)
    return large((below * (1 - share) + end * share).round().to(torch.uint8))


def large(picture: Tensor) -> Tensor:
    """picture: [H, W, 3] uint8 -> [TILE, TILE, 3], the nearest pixel for every place."""
    nearest = F.interpolate(picture.permute(2, 0, 1)[None].float(), (TILE, TILE), mode="nearest-exact")
    return nearest[0].permute(1, 2, 0).to(torch.uint8)


def sheet(rows: Sequence[Sequence[Tensor | None]], columns: int) -> Tensor:
    """Tiles in rows and columns on white paper, [H, W, 3] uint8; None leaves a place empty."""
    step = TILE + GAP
    found = torch.full((len(rows) * step - GAP, columns * step - GAP, 3), _PAPER, dtype=torch.uint8)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            if tile is not None:
                found[i * step : i * step + TILE, j * step : j * step + TILE] = tile
    return found


def _coloured(image: Tensor) -> Tensor:
    """image: [1 or 3, H, W] -> [H, W, 3] uint8."""
    picture = as_picture(image.cpu())
    return picture.unsqueeze(-1).expand(-1, -1, 3) if picture.ndim == 2 else picture
