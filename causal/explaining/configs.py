"""Options of ``causal.explain``; no torch here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Annotated, ClassVar, Literal, get_args

from annotated_types import Ge

from engram.backbone.contract import ExperimentConfig, Flag, Input, KnownData, Metric, OptionsOf, Registered, Scalar
from engram.backbone.errors import UserError, must

Method = Literal["integrated-gradients", "grad-cam", "occlusion"]
METHODS: tuple[Method, ...] = get_args(Method)
RANDOM = "random"
"""Pixels in an order drawn by lot: what every explanation is held against."""


def _measures(method: str) -> tuple[Metric, ...]:
    """What is measured of an explanation, of an order by lot the curves alone."""
    curves = (
        Metric(name=f"{method}/insertion", unit="fraction", direction="max", optional=True, primary=method != RANDOM),
        Metric(name=f"{method}/deletion", unit="fraction", direction="min", optional=True),
        Metric(name=f"{method}/on_foreground", unit="fraction", direction="max", optional=True),
    )
    if method == RANDOM:
        return curves
    named = {"unit": "", "direction": "min", "optional": True, "bounds": (0.0, None)}
    return (
        *curves,
        Metric(name=f"{method}/infidelity", **named),  # type: ignore[arg-type]
        Metric(name=f"{method}/sensitivity", **named),  # type: ignore[arg-type]
    )


METRICS = (
    *(metric for method in (*METHODS, RANDOM) for metric in _measures(method)),
    Metric(name="integrated-gradients/incompleteness", unit="", direction="min", optional=True, bounds=(0.0, None)),
    Metric(name="test/accuracy", split="test", of="accuracy", unit="fraction", direction="max"),
    Metric(name="images", unit="count", direction="max"),
)


@dataclass(frozen=True, kw_only=True)
class ExplainConfig(ExperimentConfig):
    """Ask which pixels, features and concepts a trained network answers by, and how far such explanations can be
    trusted.

    Explanations are of the network's own answer, right or wrong. Nothing is trained but directions of concepts, on
    training images.
    """

    metrics: ClassVar[tuple[Metric, ...]] = METRICS

    from_trial: Annotated[str | None, Flag("from"), Input("trained")] = None
    """The trained trial: its id, the beginning of it, its folder, or models:/NAME@ALIAS."""
    dataset: Annotated[str, Registered("datasets", training=False)] | None = None
    """What to explain answers to; by default what the trial was trained on."""
    dataset_options: Annotated[Mapping[str, Scalar], OptionsOf("dataset")] = field(default_factory=dict)
    """Options of the dataset."""
    images: Annotated[int, Ge(2)] = 64
    """Test images to explain, chosen by the seed (all of them when there are fewer)."""
    methods: tuple[Method, ...] = METHODS
    """What explains: integrated gradients, Grad-CAM, occlusion."""
    baseline: Literal["mean", "black", "blurred"] = "mean"
    """What a pixel is that is not there: the mean of the training images, black, or the picture blurred."""
    points: Annotated[int, Ge(2)] = 50
    """Points of the integral of integrated gradients."""
    window: Annotated[int, Ge(1)] | None = None
    """Height and width of what occlusion hides, in pixels. None: a quarter of the picture, hidden at every half of
    that."""
    stage: Annotated[int, Ge(0)] | None = None
    """The stage that Grad-CAM, features and concepts are looked for in, from 0. None: the last whose
    output has more than one place."""
    concept: str | None = None
    """A column of the data whose values are concepts, or ``concepts``: is the network sensitive to them (TCAV)?
    None: no concept is tested."""
    runs: Annotated[int, Ge(3)] = 10
    """Sets of images, drawn by lot, that each concept is told from."""

    def data_problems(self, known: KnownData) -> list[str]:
        if self.concept is None or self.concept in known.columns:
            return []
        return [str(unknown_concept(self.concept, known.columns))]

    def problems(self) -> list[str]:
        found = []
        if self.from_trial is None:
            found.append(must("--from", "a trained trial", "nothing", "Train one with: engram run backbone.train"))
        if not self.methods or len(set(self.methods)) < len(self.methods):
            got = ", ".join(self.methods) or "none"
            found.append(must("--methods", "at least one, each named once", got, "Leave it out for all."))
        return list(map(str, found))


def unknown_concept(name: str, columns: Collection[str]) -> UserError:
    """The error for a --concept that is no column of the data."""
    known = ", ".join(columns) or "none"
    return must("--concept", f"a column of the data ({known})", name, "Name one of these, or leave it out.")


def check_captum() -> list[str]:
    """Whether captum is there, which explains (`engram.backbone.contract.Entry`)."""
    if find_spec("captum") is not None:
        return []
    return ["causal.explain must have captum; got none. pip install 'engram[explain]'"]
