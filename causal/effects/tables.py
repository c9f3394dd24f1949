"""Effects with intervals, as rows. Effects are on test images, as they are less with a part set; numbers from 0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from engram.backbone.contract import Row
from engram.backbone.measures.bootstrap import paired_bootstrap
from engram.causal.effects import refuting
from engram.causal.effects.causes import Cause
from engram.causal.effects.following import Following
from engram.causal.effects.measuring import Effects
from engram.causal.effects.options import SetTo
from engram.causal.effects.refuting import SUSPICIOUS, Refutation
from engram.causal.effects.surroundings import Surroundings


class Estimate(NamedTuple):
    """An average causal effect and its 95 % interval over images."""

    effect: float
    low: float
    high: float

    @property
    def found(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def estimates(differences: Tensor) -> list[Estimate]:
    """differences: [K, N], of every picture, its outcome as it is less that with something set."""
    return (
        [Estimate(*row) for row in torch.stack(paired_bootstrap(differences.T), 1).tolist()] if len(differences) else []
    )


@dataclass(frozen=True)
class Refuted:
    """What refuters found.

    Attributes:
        placebos: of every stage.
        others: by refuter, of all channels followed.
    """

    placebos: Sequence[Refutation]
    others: Mapping[str, Refutation]

    @property
    def suspicious(self) -> float:
        """The share of small p among all."""
        p = torch.cat([each.p for each in (*self.placebos, *self.others.values())])
        return float((p < SUSPICIOUS).double().mean())


@dataclass(frozen=True)
class Estimates:
    """Estimates of all that was set.

    Attributes:
        effects: for every way of setting and every cause, those on the probability, the logit and the accuracy.
        placebos: of every stage, the effect of a placebo on the probability: the mean, and between what 95 % of the
            attempts lie.
        directions: [stages, PLACEBOS] float64, the effect on it of a direction by lot that is set as channels are in
            the first way.
    """

    effects: Mapping[SetTo, Mapping[Cause, tuple[Estimate, ...]]]
    placebos: Sequence[Estimate]
    directions: Tensor

    def beyond(self, how: SetTo, cause: Cause) -> bool:
        """Whether an effect on the probability has an interval without 0, and no direction by lot has one as large."""
        estimate = self.effects[how][cause][0]
        return estimate.found and abs(estimate.effect) > float(self.directions[cause.stage].abs().max())


def estimated(effects: Effects, following: Following, refuted: Refuted) -> Estimates:
    """All estimates."""
    found = {}
    for how in effects.how:
        outcomes = [estimates(each) for each in effects.differences(how)]
        found[how] = dict(zip(effects.causes, zip(*outcomes, strict=True), strict=True))
    directions = (effects.own[0].double() - following.along[:, 0].double()).mean(-1)
    ends = [map(float, each.ends()) for each in refuted.placebos]
    means = [float(each.drawn.mean()) for each in refuted.placebos]
    return Estimates(found, [Estimate(mean, *each) for mean, each in zip(means, ends, strict=True)], directions)


def _place(cause: Cause) -> dict[str, int | str | None]:
    cells = None
    if cause.region is not None:
        top, left, bottom, right = cause.region
        cells = f"{top}:{bottom},{left}:{right}"
    return {"stage": cause.stage, "channel": cause.channel, "rows,columns": cells}


def of_effects(found: Estimates) -> list[Row]:
    """A row for each cause and way of setting it; probability as a fraction, logit in nats, accuracy in points."""
    return [
        {
            **_place(cause),
            "set to": how,
            "probability": probability.effect,
            "from": probability.low,
            "to": probability.high,
            "logit (nat)": logit.effect,
            "logit from": logit.low,
            "logit to": logit.high,
            "accuracy (points)": 100 * accuracy.effect,
            "accuracy from": 100 * accuracy.low,
            "accuracy to": 100 * accuracy.high,
            "beyond directions": found.beyond(how, cause) if cause.level == "channel" else None,
        }
        for how, causes in found.effects.items()
        for cause, (probability, logit, accuracy) in causes.items()
    ]


def of_stages(found: Estimates, refuted: Refuted) -> list[Row]:
    """A row for each stage and way of setting: how many of its channels matter, and what its placebos come to."""
    rows: list[Row] = []
    for how, causes in found.effects.items():
        for stage, placebo in enumerate(found.placebos):
            channels = [cause for cause in causes if cause.stage == stage and cause.level == "channel"]
            sizes = [causes[cause][0].effect for cause in channels]
            row: dict[str, float | int | str | None] = {
                "stage": stage,
                "set to": how,
                "whole stage": causes[Cause(stage)][0].effect,
                "channels": len(channels),
                "beyond directions": sum(found.beyond(how, cause) for cause in channels),
                "largest effect": max(sizes, key=abs),
                "mean size of effects": sum(map(abs, sizes)) / len(sizes),
            }
            if how == next(iter(found.effects)):  # placebos are of the first way
                p = float(refuted.placebos[stage].p)
                size = float(found.directions[stage].abs().max())
                row |= {"largest of directions": size, "placebo": placebo.effect, "placebo from": placebo.low}
                row |= {"placebo to": placebo.high, "p": p}
            rows.append(row)
    return rows


def refuted(effects: Effects, following: Following, targets: Tensor, seed: int) -> Refuted:
    """Run all refuters. targets: [N] int64, right outputs."""
    classes = following.own.double() - following.set_to.double()
    places = targets.view(1, -1, 1).expand(len(classes), -1, 1)
    right = classes.gather(2, places).squeeze(2)
    found = {
        "permuted labels": refuting.permuted_labels(classes, targets, seed),
        "random common cause": refuting.random_common_cause(right, seed),
        "subset": refuting.subsets(right, seed),
    }
    return Refuted([refuting.placebo(each[1:], seed) for each in following.along], found if len(classes) else {})


def of_refuters(found: Estimates, following: Following, refuted: Refuted) -> list[Row]:
    """A row for each channel followed and each refuter. A small p is against the estimate (`refuting`)."""
    how, rows = following.how, list[Row]()
    for number, cause in enumerate(following.chosen):
        estimate = found.effects[how][cause][0].effect
        each = {"placebo channel": (refuted.placebos[cause.stage], 0)}
        each |= {name: (refutation, number) for name, refutation in refuted.others.items()}
        for name, (refutation, column) in each.items():
            low, high = refutation.ends()
            p = float(refutation.p[column])
            rows.append(
                {
                    "stage": cause.stage,
                    "channel": cause.channel,
                    "effect": estimate,
                    "refuter": name,
                    "should come out": float(refutation.expected[column]),
                    "came out": float(refutation.drawn[:, column].mean()),
                    "from": float(low[column]),
                    "to": float(high[column]),
                    "p": p,
                    "reads": "suspicious" if p < SUSPICIOUS else "not refuted",
                }
            )
    return rows


def of_paths(found: Estimates, effects: Effects, following: Following) -> list[Row]:
    """A row for each channel and mediator: total effect on the probability, direct one, and the rest, the indirect."""
    if not following.paths:
        return []
    own, how = effects.own[0].double(), following.how
    direct = own - following.direct.double()
    total = effects.differences(how)[0][[effects.causes.index(path.cause) for path in following.paths]]
    each = zip(following.paths, estimates(direct), estimates(total - direct), strict=True)
    return [
        {
            "stage": path.cause.stage,
            "channel": path.cause.channel,
            "past stage": path.mediator.stage,
            "past channel": "all" if path.mediator.channel is None else path.mediator.channel,
            "total": found.effects[how][path.cause][0].effect,
            "direct": straight.effect,
            "direct from": straight.low,
            "direct to": straight.high,
            "indirect": rest.effect,
            "indirect from": rest.low,
            "indirect to": rest.high,
        }
        for path, straight, rest in each
    ]


def exchanged(effects: Effects, surroundings: Surroundings, partners: Tensor) -> Iterator[tuple[str, Estimate]]:
    """The effects, on the probability, of the background and of the object, each set to that of another picture.

    partners: [N] int64, whose background the object of every picture was put in front of.
    """
    own, (shape, background) = effects.own[0].double(), surroundings.probability.double()
    yield from zip(
        ("background", "shape"), estimates(torch.stack([own - shape, own[partners] - background])), strict=True
    )


def of_surroundings(effects: Effects, surroundings: Surroundings, partners: Tensor) -> list[Row]:
    """What pictures' backgrounds and objects do for the probability of the right class, and the answers to both."""
    shape, background = surroundings.answers.double().mean(1).tolist()
    answers = {"background": shape, "shape": background}
    return [
        {
            "set to another picture's": what,
            "probability": estimate.effect,
            "from": estimate.low,
            "to": estimate.high,
            "still right": answers[what],
        }
        for what, estimate in exchanged(effects, surroundings, partners)
    ]
