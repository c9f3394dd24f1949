"""Options of ``causal.attention``; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from annotated_types import Ge

from engram.backbone.contract import ExperimentConfig, Flag, Input, Metric, OptionsOf, Registered, Scalar
from engram.backbone.errors import must
from engram.backbone.experiments.configs import accuracy


@dataclass(frozen=True, kw_only=True)
class AttentionConfig(ExperimentConfig):
    """What the attention of a trained network adds to its answers, on test images.

    Its maps are exchanged for others of every kind, with the values of the last stage held. Nothing is trained.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (
        accuracy("test", primary=True),
        Metric(name="test/effect_accuracy", split="test", of="effect_accuracy", unit="fraction", direction="max"),
        Metric(name="test/effect", split="test", of="effect", unit="", direction="max", bounds=(-1.0, 1.0)),
        Metric(name="images", unit="count", direction="max"),
    )

    from_trial: Annotated[str | None, Flag("from"), Input("trained")] = None
    """The trained trial: its id, the beginning of it, or its folder. Its network was made with
    causal.counterfactual-attention."""
    dataset: Annotated[str, Registered("datasets", training=False)] | None = None
    """What to look at; by default what the trial was trained on."""
    dataset_options: Annotated[Mapping[str, Scalar], OptionsOf("dataset")] = field(default_factory=dict)
    """Options of the dataset."""
    shown: Annotated[int, Ge(0)] = 8
    """Test images whose maps are drawn."""

    def problems(self) -> list[str]:
        if self.from_trial is not None:
            return []
        step = (
            "Train one: engram run backbone.train --adapter causal.counterfactual-attention --objective counterfactual"
        )
        return [str(must("--from", "a trained trial", "nothing", step))]
