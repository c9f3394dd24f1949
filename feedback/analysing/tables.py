"""What was counted, as rows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from engram.backbone.contract import Row
from engram.backbone.measures.bootstrap import paired_bootstrap
from engram.feedback.analysing.ablation import Lost, Variant, lost
from engram.feedback.analysing.alignment import similarity
from engram.feedback.analysing.decoders import SEEN, Decoders, Place
from engram.feedback.analysing.measuring import Measured

CORRUPTED = "corrupted"
"""The mean over corruptions."""
EVERY = "all"
"""In place of a step."""
EXCHANGED = "another picture's"
"""What a connection carries that is not switched off but exchanged."""


def names_of(networks: int) -> tuple[str, ...]:
    """What the networks compared are called."""
    return ("with feedback", "without feedback") if networks > 1 else ("the network",)


def accuracies(measured: Measured) -> list[Row]:
    """A row for each network and step: accuracy under every condition, and its mean over corruptions."""
    rows: list[Row] = []
    for network, right in zip(names_of(len(measured.networks)), measured.right, strict=True):
        for point, step in enumerate(measured.inside.points):
            shares = right[:, point].double().mean(1).tolist()
            named = dict(zip(measured.conditions, shares, strict=True))
            rows.append({"network": network, "steps": step, **named, CORRUPTED: sum(shares[1:]) / len(shares[1:])})
    return rows


Losses = Mapping[tuple[Variant, str], Lost]
"""What is lost with connections changed, under each condition and as the mean over corruptions."""


def losses(measured: Measured) -> Losses:
    """What is lost with each of the variants."""
    before, after = (_with_mean(right.double()) for right in (measured.right[0, :, -1], measured.ablated))
    names = (*measured.conditions, CORRUPTED)
    found: dict[tuple[Variant, str], Lost] = {}
    for place, name in enumerate(names if measured.variants else ()):
        each = lost(before[place], after[:, place])
        found |= {(variant, name): value for variant, value in zip(measured.variants, each, strict=True)}
    return found


def _with_mean(right: Tensor) -> Tensor:
    """right: [..., conditions, N] -> [..., conditions + 1, N], last the mean over corruptions."""
    return torch.cat([right, right[..., 1:, :].mean(-2, keepdim=True)], -2)


def ablation(measured: Measured, found: Losses) -> list[Row]:
    """A row for each connection, step and condition: accuracy with it changed, and what is lost, in points."""
    whole = _with_mean(measured.right[0, :, -1].double()).mean(-1).tolist()
    accuracy = dict(zip((*measured.conditions, CORRUPTED), whole, strict=True))
    return [
        {
            "connection": variant.connection,
            "carries": EXCHANGED if variant.exchanged else "nothing",
            "in step": EVERY if variant.step is None else variant.step,
            "pictures": condition,
            "accuracy": accuracy[condition] - each.points / 100,
            "points_lost": each.points,
            "from": each.low,
            "to": each.high,
        }
        for variant in measured.variants
        for condition in accuracy
        for each in [found[variant, condition]]
    ]


def alignment(measured: Measured) -> list[Row]:
    """A row for each network, corruption, stage and step: similarity to the same pictures clean."""
    names, inside = names_of(len(measured.networks)), measured.inside
    return [
        {
            "network": names[n],
            "pictures": condition,
            "stage": stage,
            "step": step,
            **similarity(measured.alike[n, c, s, p]),
        }
        for n in range(len(names))
        for c, condition in enumerate(measured.conditions[1:])
        for s, stage in enumerate(inside.stages)
        for p, step in enumerate(inside.points)
    ]


def convergence(measured: Measured) -> list[Row]:
    """A row for each network, condition, stage and step from the second: the mean relative change in that step."""
    names, images = names_of(len(measured.networks)), measured.right.shape[-1]
    return [
        {
            "network": names[n],
            "pictures": condition,
            "stage": stage,
            "step": step + 2,
            "relative_change": float(total) / images,
        }
        for n in range(len(names))
        for c, condition in enumerate(measured.conditions)
        for s, stage in enumerate(measured.inside.stages)
        for step, total in enumerate(measured.change[n, c, s])
    ]


def r_squared(decoders: Decoders, place: Place) -> float | None:
    """Which share of the variance of what is hidden a decoder explains; None where nothing varies."""
    row = -1 if place.stage == SEEN else decoders.places.index(place)
    total = float(decoders.spread.sum())
    return 1 - float(decoders.errors[row].sum()) / total if total else None


def decoding(decoders: Decoders) -> list[Row]:
    """A row for each network, stage and step: R squared of what is hidden; last that of a decoder of what is seen."""
    names, points = names_of(len(decoders.networks)), decoders.inside.points
    fitted = decoders.fitted()
    return [
        {
            "network": "" if place.stage == SEEN else names[place.network],
            "stage": place.stage,
            "step": None if place.stage == SEEN else points[place.point],
            "r_squared": r_squared(decoders, place),
            "penalty": fitted[place].penalty,
        }
        for place in (*decoders.places, Place(0, SEEN, 0))
    ]


def told(decoders: Decoders) -> float | None:
    """R squared of what is hidden at the end, as the mean over stages."""
    last = len(decoders.inside.points) - 1
    found = [r_squared(decoders, Place(0, stage, last)) for stage in decoders.inside.stages]
    known = [each for each in found if each is not None]
    return sum(known) / len(known) if known else None


def filled_in(decoders: Decoders) -> tuple[float, float] | None:
    """How much of that is there thanks to feedback, and half the 95 % interval over pictures."""
    last, mean = len(decoders.inside.points) - 1, float(decoders.spread.mean())
    if not mean:
        return None
    ours, theirs = (
        torch.stack([decoders.errors[decoders.places.index(Place(n, stage, last))] for stage in decoders.inside.stages])
        for n in (0, 1)
    )
    gain, low, high = (float(each) for each in paired_bootstrap((theirs - ours).mean(0)[:, None] / mean))
    return gain, (high - low) / 2
