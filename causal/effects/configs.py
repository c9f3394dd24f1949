"""Options of ``causal.effects``; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from annotated_types import Ge

from engram.backbone.contract import ExperimentConfig, Flag, Input, Metric, OptionsOf, Registered, Scalar
from engram.backbone.errors import must
from engram.causal.effects.options import SetTo


def _test(of: str, unit: str, direction: str, **more: object) -> Metric:
    return Metric(name=f"test/{of}", split="test", of=of, unit=unit, direction=direction, **more)  # type: ignore[arg-type]


EFFECT = (-1.0, 1.0)
"""Bounds of a difference of probabilities."""
METRICS = (
    _test("largest_effect", "", "max", bounds=EFFECT, primary=True),
    _test("causal_channels", "fraction", "max"),
    _test("placebo_effect", "", "min", bounds=(0.0, 1.0)),
    _test("placebo_p", "fraction", "max"),
    _test("suspicious", "fraction", "min"),
    _test("accuracy", "fraction", "max"),
    _test("shape_effect", "", "max", bounds=EFFECT, optional=True),
    _test("background_effect", "", "min", bounds=EFFECT, optional=True),
    _test("shape_share", "fraction", "max", optional=True),
    Metric(name="images", unit="count", direction="max"),
)


@dataclass(frozen=True, kw_only=True)
class EffectsConfig(ExperimentConfig):
    """What parts of a trained network do for its answers: stages, channels and regions are set, one after another.

    The average causal effect of each is how much lower the probability of the right class is then, its logit and the
    accuracy, over test images, with intervals over images. The channels with the largest effects are refuted in four
    ways, and their effects followed past later stages. Where the data say where the objects are, pictures' backgrounds
    and objects are exchanged. Any network is taken, with steps or without; nothing of it is trained.
    """

    metrics: ClassVar[tuple[Metric, ...]] = METRICS

    from_trial: Annotated[str | None, Flag("from"), Input("trained")] = None
    """The trained trial: its id, the beginning of it, its folder, or models:/NAME@ALIAS."""
    dataset: Annotated[str, Registered("datasets", training=False)] | None = None
    """What to look at; by default what the trial was trained on."""
    dataset_options: Annotated[Mapping[str, Scalar], OptionsOf("dataset")] = field(default_factory=dict)
    """Options of the dataset."""
    images: Annotated[int, Ge(2)] = 1000
    """Test images to look at, chosen by the seed (all of them when there are fewer), and as many training images whose
    mean values are set to."""
    set_to: tuple[SetTo, ...] = ("mean", "resample", "zero")
    """What values are set to, in turn: the mean over training images, cell by cell and step by step; what the network
    has at the same place for another image; zero, which it may never have had everywhere. Refuters and paths are of the
    first one."""
    cells: Annotated[int, Ge(0)] = 3
    """Maps of stages are cut into so many rows and columns of regions; 0 or 1: no regions."""
    top: Annotated[int, Ge(0)] = 4
    """How many channels of each stage, those with the largest effects, are refuted and followed."""

    def problems(self) -> list[str]:
        found = []
        if self.from_trial is None:
            step = "Train one with: engram run backbone.train"
            found.append(must("--from", "a trained trial", "nothing", step))
        if not self.set_to:
            found.append(must("--set-to", "at least one", "none", "Name some: mean,resample,zero"))
        if len(set(self.set_to)) < len(self.set_to):
            found.append(must("--set-to", "named once each", ",".join(self.set_to), "Leave out the others."))
        return list(map(str, found))
