"""Maps of what stages give and connections carry, as pictures."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from engram.backbone.measures.tiles import diverging, grey, sheet, shown
from engram.feedback.analysing.looking import Looked
from engram.feedback.connections import FEATURES


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
        [grey(_strength(value)[step - 1, 0] / scale) for step in steps]
        for value, scale in zip(maps, scales, strict=True)
    ]
    return sheet([[shown(image)], *rows], len(steps))


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
        [diverging((values[step][0].mean(0) - neutral) / scale) if step in values else None for step in steps]
        for values, scale in zip(looked.paths.values(), scales, strict=True)
    ]
    return sheet([[shown(image)], *rows], len(steps))


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
