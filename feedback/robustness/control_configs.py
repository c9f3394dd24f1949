"""Options of ``feedback.control``; no torch here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from engram.backbone.contract import Metric, Requirement
from engram.backbone.experiments.configs import TRAIN_METRICS, TrainConfig
from engram.backbone.registry import Registry
from engram.feedback.flags import with_feedback

Match = Literal["parameters", "flops"]


@dataclass(frozen=True, kw_only=True)
class ControlConfig(TrainConfig):
    """Train a feed-forward network as large, or as expensive, as one with feedback.

    The network is the backbone without its ``feedback.*`` adapters, at the width at which it comes closest to the one
    with them. All else of the training is the same.
    """

    version: ClassVar[int] = 1
    metrics: ClassVar[tuple[Metric, ...]] = (
        *TRAIN_METRICS,
        Metric(name="flops_per_image", unit="1/image", direction="min"),
        Metric(name="width", unit="", direction="min", optional=True),
        Metric(name="mismatch", unit="%", direction="min", optional=True),
    )

    match: Match = "parameters"
    """What is as in the network with feedback: the number of parameters, or the operations of one image in all its
    steps."""

    def problems(self) -> list[str]:
        return [*super().problems(), *(without_width(self.backbone) if with_feedback(self.adapter) else ())]

    def first(self) -> Requirement:
        """The network that an objective begins from is as wide."""
        return Requirement(experiment="feedback.control", config=replace(self, **self.as_reference()))


def without_width(backbone: str) -> list[str]:
    """What keeps a network from being made wider or narrower; nothing for most."""
    registry = Registry.discover()
    options = None if registry.entry("backbones", backbone).takes_path else registry.options("backbones", backbone)
    if options is not None and "width" in getattr(options, "__dataclass_fields__", {}):
        return []
    rule = "one whose options have a width, so that a control of the same size can be made"
    return [f"--backbone must be {rule}; got {backbone}. Choose another one, or leave controls out: --controls none."]
