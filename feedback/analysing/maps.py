"""Maps of what stages give and connections carry, as pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.measures.confusions import as_picture
from engram.feedback.analysing.looking import Looked
from engram.feedback.connections import FEATURES

TILE, GAP = 48, 3
"""Pixels of a map, and between two."""
_PAPER = 255
_LESS, _MORE = torch.tensor([33, 102, 172.0]), torch.tensor([178, 24, 43.0])
"""The colours of what is far below, and far above, what changes nothing."""


def stage_sheet(looked: Looked, image: Tensor, steps: Sequence[int], scales: Sequence[float]) -> Tensor:
    """A picture, and below it a row of maps for every stage: how strong it is at every place, step by step.

    Args:
        looked: at that picture alone.
        image: [C, H, W] uint8, as it was shown.
        steps: from 1; a column each.
        scales: for every stage what is drawn as white; `strongest` gives it.

    Returns: [H', W', 3] uint8.
    """
    maps = [value for name, value in looked.stages.items() if name != FEATURES]
    rows = [
        [_grey(_strength(value)[step - 1, 0] / scale) for step in steps]
        for value, scale in zip(maps, scales, strict=True)
    ]
    return _sheet([[_shown(image)], *rows], len(steps))


def strongest(looked: Sequence[Looked]) -> list[float]:
    """For every stage the largest strength in all of these."""
    stages = [name for name in looked[0].stages if name != FEATURES]
    return [max(float(_strength(each.stages[name]).max()) for each in looked) or 1.0 for name in stages]


def path_sheet(looked: Looked, image: Tensor, neutral: float, steps: Sequence[int], scales: Sequence[float]) -> Tensor:
    """A picture, and below it a row of maps for every connection: the mean over channels of what it carries.

    White changes nothing, blue is less and red is more.

    Args:
        looked: at that picture alone.
        image: [C, H, W] uint8, as it was shown.
        neutral: what changes nothing.
        steps: from 1; a column each.
        scales: for every connection how far from it the full colour is; `furthest` gives it.

    Returns: [H, W, 3] uint8.
    """
    rows = [
        [_diverging((values[step][0].mean(0) - neutral) / scale) if step in values else None for step in steps]
        for values, scale in zip(looked.paths.values(), scales, strict=True)
    ]
    return _sheet([[_shown(image)], *rows], len(steps))


def furthest(looked: Sequence[Looked], neutral: float) -> list[float]:
    """For every connection the largest distance from what changes nothing, of means over channels, in all of these."""
    names = list(looked[0].paths)
    return [
        max((float((v.mean(1) - neutral).abs().max()) for each in looked for v in each.paths[name].values()), default=0)
        or 1.0
        for name in names
    ]


def _strength(value: Tensor) -> Tensor:
    """value: [S, B, C, H, W] -> the mean of absolute values over channels, [S, B, H, W]."""
    return value.abs().mean(2)


def _shown(image: Tensor) -> Tensor:
    picture = as_picture(image.cpu())
    return _large(picture.unsqueeze(-1).expand(-1, -1, 3) if picture.ndim == 2 else picture)


def _grey(value: Tensor) -> Tensor:
    """value: [H, W] between 0 and 1 -> a tile [TILE, TILE, 3] uint8."""
    return _large((value.cpu().clamp(0, 1) * 255).round().to(torch.uint8).unsqueeze(-1).expand(-1, -1, 3))


def _diverging(value: Tensor) -> Tensor:
    """value: [H, W] between -1 and 1 -> a tile [TILE, TILE, 3] uint8."""
    value = value.float().cpu().clamp(-1, 1).unsqueeze(-1)
    end = torch.where(value < 0, _LESS, _MORE)
    return _large((_PAPER + (end - _PAPER) * value.abs()).round().to(torch.uint8))


def _large(picture: Tensor) -> Tensor:
    """picture: [H, W, 3] uint8 -> [TILE, TILE, 3], the nearest pixel for every place."""
    nearest = F.interpolate(picture.permute(2, 0, 1)[None].float(), (TILE, TILE), mode="nearest-exact")
    return nearest[0].permute(1, 2, 0).to(torch.uint8)


def _sheet(rows: Sequence[Sequence[Tensor | None]], columns: int) -> Tensor:
    """Tiles in rows and columns on white paper; None leaves a place empty."""
    step = TILE + GAP
    sheet = torch.full((len(rows) * step - GAP, columns * step - GAP, 3), _PAPER, dtype=torch.uint8)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            if tile is not None:
                sheet[i * step : i * step + TILE, j * step : j * step + TILE] = tile
    return sheet
