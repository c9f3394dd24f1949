"""Effects, as figures."""

from __future__ import annotations

import math

from engram.backbone.contract import AnyFigure, Bars, Grid
from engram.causal.effects.causes import Cause
from engram.causal.effects.following import Following
from engram.causal.effects.tables import Estimates

SHOWN = 24
"""Channels that have a bar."""


def channels(found: Estimates, following: Following) -> dict[str, AnyFigure]:
    """The largest effects of channels with their intervals, and those of all channels as shades, stage by stage."""
    causes = found.effects[following.how]
    all_of_them = [cause for cause in causes if cause.level == "channel"]
    largest = sorted(all_of_them, key=lambda cause: -abs(causes[cause][0].effect))[:SHOWN]
    names = [_short(cause) for cause in largest]
    several = {how: [each[cause][0] for cause in largest] for how, each in found.effects.items()}
    stages, widest = len(found.placebos), max(cause.channel or 0 for cause in all_of_them) + 1

    def effect(stage: int, channel: int) -> float:
        each = causes.get(Cause(stage, channel))
        return math.nan if each is None else each[0].effect

    return {
        "largest_effects": Bars(
            title=f"Channels with the largest effects, chosen where set to {following.how}",
            x_label="stage:channel, from 0",
            y_label="lower probability of the right class when set",
            names=names,
            series={how: [each.effect for each in estimates] for how, estimates in several.items()},
            ranges={how: [(each.low, each.high) for each in estimates] for how, estimates in several.items()},
        ),
        "channel_effects": Grid(
            title=f"Effect of every channel on the probability of the right class, set to {following.how}",
            x_label="channel, from 0",
            y_label="stage, from 0",
            columns=[str(channel) for channel in range(widest)],
            rows=[str(stage) for stage in range(stages)],
            values=[[effect(stage, channel) for channel in range(widest)] for stage in range(stages)],
        ),
    }


def stages(found: Estimates) -> dict[str, AnyFigure]:
    """What whole stages and their placebos come to."""
    numbers = range(len(found.placebos))
    whole = {how: [each[Cause(stage)][0] for stage in numbers] for how, each in found.effects.items()}
    bars = {**whole, "placebo channel": list(found.placebos)}
    return {
        "stage_effects": Bars(
            title="Effect of whole stages, and of placebo channels, on the probability of the right class",
            x_label="stage, from 0",
            y_label="lower probability of the right class when set",
            names=[str(stage) for stage in numbers],
            series={name: [each.effect for each in estimates] for name, estimates in bars.items()},
            ranges={name: [(each.low, each.high) for each in estimates] for name, estimates in bars.items()},
        )
    }


def regions(found: Estimates, following: Following) -> dict[str, AnyFigure]:
    """The effect of every region of every stage's maps."""
    causes = found.effects[following.how]
    drawn: dict[str, AnyFigure] = {}
    for stage in range(len(found.placebos)):
        boxes = {cause.region: cause for cause in causes if cause.stage == stage and cause.region is not None}
        rows = sorted({(box.top, box.bottom) for box in boxes})
        columns = sorted({(box.left, box.right) for box in boxes})
        if not boxes:
            continue
        drawn[f"region_effects_stage_{stage}"] = Grid(
            title=f"Effect of regions of stage {stage} on the probability of the right class, set to {following.how}",
            x_label="columns of the map, from 0",
            y_label="rows",
            columns=[_span(*each) for each in columns],
            rows=[_span(*each) for each in rows],
            values=[
                [causes[boxes[type(next(iter(boxes)))(top, left, bottom, right)]][0].effect for left, right in columns]
                for top, bottom in rows
            ],
        )
    return drawn


def _short(cause: Cause) -> str:
    return f"{cause.stage}:{cause.channel}"


def _span(start: int, stop: int) -> str:
    return str(start) if stop == start + 1 else f"{start} to {stop - 1}"
