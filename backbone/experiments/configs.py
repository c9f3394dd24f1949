"""Options of ``backbone.train`` and ``backbone.evaluate``; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from annotated_types import Ge, Gt, Le, Lt

from engram.backbone.contract import (
    ExperimentConfig,
    Flag,
    Metric,
    OptionsOf,
    Registered,
    Requirement,
    Scalar,
    SplitName,
)
from engram.backbone.experiments.recipes import recipe
from engram.backbone.objectives.options import ObjectiveOptions


def accuracy(split: SplitName, network: str = "", **more: Any) -> Metric:
    """The accuracy on a split, of the network that a trial has or of the one of its networks that is named."""
    name = f"{network}/{split}/accuracy".lstrip("/")
    return Metric(name=name, split=split, of="accuracy", unit="fraction", direction="max", **more)


def loss(split: SplitName, **more: Any) -> Metric:
    """The mean loss on a split."""
    return Metric(name=f"{split}/loss", split=split, of="loss", unit="nat", direction="min", **more)


TRAIN_METRICS = (
    accuracy("test", primary=True),
    loss("test"),
    accuracy("validation", optional=True),
    loss("validation", optional=True),
    loss("train"),
    Metric(name="parameters", unit="count", direction="min"),
    Metric(name="images_per_second", unit="1/s", direction="max", timed=True),
    Metric(name="train_seconds", unit="s", direction="min", timed=True),
)

FINE_TUNING = 0.2  # learning rate of a network that is trained already, relative to that of a fresh one


@dataclass(frozen=True, kw_only=True)
class TrainConfig(ObjectiveOptions, ExperimentConfig):
    """Train a network on images.

    Values left out come from the recipe of the network and dataset (``backbone/experiments/recipes.py``).
    """

    version: ClassVar[int] = 2
    metrics: ClassVar[tuple[Metric, ...]] = TRAIN_METRICS

    dataset: Annotated[str, Registered("datasets")] = "digits"
    """What to train on: see ``engram list datasets``."""
    dataset_options: Annotated[Mapping[str, Scalar], OptionsOf("dataset")] = field(default_factory=dict)
    """Options of the dataset."""
    backbone: Annotated[str, Registered("backbones")] = "lenet5"
    """The network: see ``engram list backbones``."""
    backbone_options: Annotated[Mapping[str, Scalar], OptionsOf("backbone")] = field(default_factory=dict)
    """Options of the network."""
    head: Annotated[str | None, Registered("heads")] = None
    """What makes logits of features: see ``engram list heads``. None: linear, or beside --from that of the trial;
    another one than that starts afresh."""
    head_options: Annotated[Mapping[str, Scalar], OptionsOf("head")] = field(default_factory=dict)
    """Options of the head."""
    adapter: Annotated[str | None, Registered("adapters")] = None
    """What changes the network before it is trained: see ``engram list adapters``."""
    adapter_options: Annotated[Mapping[str, Scalar], OptionsOf("adapter")] = field(default_factory=dict)
    """Options of the adapter."""
    validation: Annotated[float, Ge(0), Lt(1)] = 0.1
    """Share of the training images held out for validation; 0 trains on all of them."""
    from_trial: Annotated[str | None, Flag("from")] = None
    """Start from the weights of this trained trial: its id, the beginning of it, or its folder. Its own adapters stay,
    and the recipe's learning rate becomes a fifth."""
    teacher: str | None = None
    """Learn from the outputs of this trained trial as well."""
    distill: Annotated[float, Gt(0), Le(1)] = 0.5
    """Share of the loss that is the difference to the teacher's outputs."""
    temperature: Annotated[float, Gt(0)] = 2.0
    """Divides the logits of both before they are compared; above 1 the teacher's small probabilities count more."""
    tet: Annotated[float, Ge(0), Lt(1)] | None = None
    """Temporal efficient training: the mean of the losses of every step's output in place of the loss of the read-out;
    of it, this share draws outputs to 1. None: the loss of the read-out. With one step both are the same."""
    balance: str | None = None
    """A column of the data, or ``label``: every batch shows as many images of each of its values. None: every image
    once in a pass."""

    epochs: Annotated[int, Ge(1)] | None = None
    """Passes over the training images."""
    batch_size: Annotated[int, Ge(1)] | None = None
    """Images per step; the last step of a pass takes what is left, or leaves out a single image under BatchNorm."""
    optimizer: Literal["sgd", "adamw", "muon"] | None = None
    """sgd has Nesterov momentum; muon orthogonalises the updates of matrices and kernels, adamw takes the rest."""
    lr: Annotated[float, Gt(0)] | None = None
    """Peak learning rate."""
    momentum: Annotated[float, Ge(0), Lt(1)] | None = None
    """Momentum of sgd and muon, beta1 of adamw."""
    weight_decay: Annotated[float, Ge(0)] | None = None
    """Decay of weights (decoupled for adamw and muon); biases and norms are spared."""
    schedule: Literal["onecycle", "cosine", "constant"] | None = None
    """onecycle: linear up, then linear down to zero; cosine: linear warm-up, then half a cosine."""
    warmup: Annotated[float, Ge(0), Lt(1)] | None = None
    """Share of the steps in which the learning rate rises."""
    label_smoothing: Annotated[float, Ge(0), Lt(1)] | None = None
    """Share of the target spread over all classes."""
    flip: Literal["none", "random", "alternate"] | None = None
    """Horizontal mirror; alternate mirrors every image in every other epoch."""
    translate: Annotated[int, Ge(0)] | None = None
    """Largest shift in pixels, in each direction."""
    border: Literal["reflect", "black"] = "reflect"
    """What a shifted picture shows beyond its border: its mirror image, or black."""
    cutout: Annotated[int, Ge(0)] | None = None
    """Side of the square that is blanked; 0 for none."""
    randaugment: Annotated[int, Ge(0), Le(8)] | None = None
    """Number of RandAugment operations per batch; 0 for none."""
    ema: Annotated[float, Ge(0), Lt(1)] | None = None
    """Decay per step of the running average of the weights that is scored; 0 for none."""
    clip: Annotated[float, Ge(0)] | None = None
    """Largest norm of the gradient; 0 for no limit."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 autocast where the processor has it in hardware."""

    def recipe(self) -> Mapping[str, Scalar]:
        """The training values of the network and dataset."""
        values = recipe(self.backbone, self.dataset, self.optimizer)
        if self.from_trial is not None:
            values = {**values, "lr": FINE_TUNING * float(values["lr"] or 0)}
        return values

    def resolved(self) -> Self:
        values = self.recipe()
        missing = {f.name: values[f.name] for f in fields(self) if f.name in values and getattr(self, f.name) is None}
        if self.from_trial is None and self.head is None:
            missing["head"] = "linear"
        found = replace(self, **missing)
        return found if found.translate else replace(found, border=type(self).border)  # no other trial

    def problems(self) -> list[str]:
        given = [name for name in ("distill", "temperature") if getattr(self, name) != getattr(type(self), name)]
        if self.teacher is None and given:
            return [f"--{given[0]} must be left out without a teacher; got {getattr(self, given[0])}. Add --teacher."]
        return []

    def requires(self) -> Mapping[str, Requirement]:
        trials = {"trained": self.from_trial, "teacher": self.teacher}
        return {role: Requirement(trial=trial) for role, trial in trials.items() if trial is not None}


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(ExperimentConfig):
    """Score a trained network on any data, with the preprocessing it was trained with."""

    version: ClassVar[int] = 2
    metrics: ClassVar[tuple[Metric, ...]] = (
        *(accuracy(split, primary=True, optional=True) for split in get_args(SplitName)),
        *(loss(split, optional=True) for split in get_args(SplitName)),
        Metric(name="images", unit="count", direction="max"),
    )
    renamed: ClassVar[Mapping[str, str]] = {"accuracy": "{split}/accuracy", "loss": "{split}/loss"}

    from_trial: Annotated[str | None, Flag("from")] = None
    """The trained trial: its id, the beginning of it, or its folder."""
    dataset: Annotated[str, Registered("datasets", training=False)] | None = None
    """What to score on; by default what the trial was trained on."""
    dataset_options: Annotated[Mapping[str, Scalar], OptionsOf("dataset")] = field(default_factory=dict)
    """Options of the dataset."""
    split: SplitName = "test"
    """Which images, and the first word of the scores' names; a source that has no split of its own (one parquet file,
    say) is always scored whole."""

    def problems(self) -> list[str]:
        if self.from_trial is None:
            return ["--from must be a trained trial; got nothing. Train one with: engram run backbone.train"]
        return []

    def requires(self) -> Mapping[str, Requirement]:
        return {"trained": Requirement(trial=self.from_trial, same_data=self.dataset is None)}
