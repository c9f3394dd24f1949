"""Options of ``causal.attention``; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from annotated_types import Ge

from engram.backbone.contract import ExperimentConfig, Flag, Input, Metric, OptionsOf, Registered, Requirement, Scalar
from engram.backbone.errors import must
from engram.backbone.experiments.configs import TrainConfig, accuracy

ADAPTER = "causal.counterfactual-attention"


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
    """The trained trial: its id, the beginning of it, its folder, or models:/NAME@ALIAS. Its network was made with
    causal.counterfactual-attention. None: one is trained first."""
    dataset: Annotated[str, Registered("datasets", training=False)] | None = None
    """What to look at; by default what the trial was trained on."""
    dataset_options: Annotated[Mapping[str, Scalar], OptionsOf("dataset")] = field(default_factory=dict)
    """Options of the dataset."""
    shown: Annotated[int, Ge(0)] = 8
    """Test images whose maps are drawn."""

    epochs: Annotated[int, Ge(1)] = 10
    """Passes in which that network is trained where no trial is named, on --dataset or the digits."""

    def requires(self) -> Mapping[str, Requirement]:
        if self.from_trial is not None:
            return {}
        data = {} if self.dataset is None else {"dataset": self.dataset, "dataset_options": self.dataset_options}
        of_training = {"adapter": (ADAPTER,), "objective": "counterfactual", "epochs": self.epochs, "seed": self.seed}
        config = TrainConfig.resolve({**data, **of_training})
        return {"trained": Requirement(experiment="backbone.train", config=config)}

    def problems(self) -> list[str]:
        if self.from_trial is None or self.epochs == type(self).epochs:
            return []
        return [str(must("--epochs", "left out beside --from, which is trained", self.epochs, "Drop one of the two."))]
