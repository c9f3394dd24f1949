"""What there is to see of a network whose parts were set."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from engram.backbone.contract import AnyFigure, Result, Row
from engram.causal.effects import figures, tables
from engram.causal.effects.following import Following
from engram.causal.effects.measuring import Effects
from engram.causal.effects.surroundings import Surroundings


def report(
    effects: Effects,
    following: Following,
    targets: Tensor,
    exchanged: tuple[Surroundings, Tensor] | None,
    cautions: Sequence[Row],
    seed: int,
) -> Result:
    """Metrics, tables and figures.

    Args:
        effects, following: what was measured.
        targets: [N] int64, the right outputs.
        exchanged: answers to exchanged backgrounds, and whose they were, [N] int64.
        cautions: what to know beforehand.
        seed: of the refuters' draws.
    """
    refuted = tables.refuted(effects, following, targets, seed)
    found = tables.estimated(effects, following, refuted)
    rows = {
        "stages": tables.of_stages(found, refuted),
        "effects": tables.of_effects(found),
        "refuters": tables.of_refuters(found, following, refuted),
        "paths": tables.of_paths(found, effects, following),
        "surroundings": [] if exchanged is None else tables.of_surroundings(effects, *exchanged),
        "cautions": cautions,
    }
    drawn: dict[str, AnyFigure] = {
        **figures.channels(found, following),
        **figures.stages(found),
        **figures.regions(found, following),
    }
    return Result(
        metrics=metrics(effects, following, found, refuted, exchanged),
        tables={name: each for name, each in rows.items() if each},
        figures=drawn,
    )


def metrics(
    effects: Effects,
    following: Following,
    found: tables.Estimates,
    refuted: tables.Refuted,
    exchanged: tuple[Surroundings, Tensor] | None,
) -> dict[str, float]:
    """What `engram.causal.effects.configs.METRICS` declares."""
    how = following.how
    channels = [cause for cause in effects.causes if cause.level == "channel"]
    placebos = [abs(each.effect) for each in found.placebos]
    told = {
        "test/largest_effect": max((found.effects[how][cause][0].effect for cause in channels), key=abs),
        "test/causal_channels": sum(found.beyond(how, cause) for cause in channels) / len(channels),
        "test/placebo_effect": sum(placebos) / len(placebos),
        "test/placebo_p": min(1.0, len(refuted.placebos) * min(float(each.p) for each in refuted.placebos)),
        "test/suspicious": refuted.suspicious,
        "test/accuracy": float(effects.own[2].double().mean()),
        "images": float(effects.own.shape[1]),
    }
    if exchanged is not None:
        told |= {f"test/{what}_effect": each.effect for what, each in tables.exchanged(effects, *exchanged)}
        if (share := exchanged[0].share()) is not None:
            told["test/shape_share"] = share
    return told
