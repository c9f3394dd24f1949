"""Options of ``fewshot.incremental``; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar, Literal, Self

from annotated_types import Ge, Gt, Le

from engram.backbone.contract import (
    NOTHING,
    Direction,
    Inputs,
    Metric,
    OptionsOf,
    Registered,
    Requirement,
    Scalar,
    Seed,
    SplitName,
)
from engram.backbone.errors import UserError, must
from engram.backbone.experiments.configs import TrainConfig
from engram.backbone.training.options import TrainingOptions
from engram.fewshot.fixed_heads import without_classifier


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """Which classes come in which session, and from which images they are learned."""

    seed: Seed = 0
    """Seed of everything random in the trial."""
    base_classes: Annotated[int, Ge(2)] = 5
    """Classes of the base session, learned from all their training images."""
    ways: Annotated[int, Ge(1)] = 1
    """New classes in each session after it; there are as many sessions as it takes to have every class of the data."""
    shots: Annotated[int, Ge(1)] = 5
    """Training images of each new class, drawn by the seed; those of fewer shots are among those of more."""
    class_order: Literal["shuffled", "sorted"] = "shuffled"
    """Which classes come first; shuffled by the seed."""


_KEPT = ("base_classes", "ways", "shots", "class_order")
"""Beside --from as in the trial, where it was one of this experiment and others are not given."""
_OF_TRAINING = (
    *(each.name for each in fields(TrainingOptions) if each.name not in ("seed", "epochs")),
    *("head", "head_options", "objective", "objective_options", "teacher", "tet", "discount", "balance"),
)
MEASURES: tuple[tuple[str, str, Direction], ...] = (
    ("accuracy", "fraction", "max"),
    ("average_accuracy", "fraction", "max"),
    ("accuracy_drop", "points", "min"),
    ("base_accuracy", "fraction", "max"),
    ("novel_accuracy", "fraction", "max"),
    ("harmonic_accuracy", "fraction", "max"),
)
"""What is measured on each split: name, unit and direction."""


def _metrics(split: SplitName, **more: Any) -> tuple[Metric, ...]:
    return tuple(
        Metric(
            name=f"{split}/{of}",
            split=split,
            of=of,
            unit=unit,
            direction=direction,
            primary=split == "test" and of == "accuracy",
            **more,
        )
        for of, unit, direction in MEASURES
    )


@dataclass(frozen=True, kw_only=True)
class IncrementalConfig(SessionOptions, TrainConfig):
    """Train a network on some classes, then add the others from a few images each, and test on all classes so far.

    The network is trained in the base session alone. A classifier is fitted to its features of the training images of
    all classes so far, anew after every session: all images of base classes, a few of each new one. Trials that differ
    in what comes after the base session alone share its network, which is trained in a trial of its own.
    """

    version: ClassVar[int] = 1
    metrics: ClassVar[tuple[Metric, ...]] = (
        *_metrics("test"),
        *_metrics("validation", optional=True),
        Metric(name="train/loss", split="train", of="loss", unit="nat", direction="min", optional=True),
        Metric(name="parameters", unit="count", direction="min"),
        Metric(name="train_seconds", unit="s", direction="min", timed=True, optional=True),
    )

    trains_first: ClassVar[bool] = False

    classifier: Annotated[str, Registered("heads", support=True)] = "fewshot.prototype"
    """What answers: a head that is fitted to the features of labelled images. --head is what the network is trained
    with in the base session."""
    classifier_options: Annotated[Mapping[str, Scalar], OptionsOf("classifier")] = field(default_factory=dict)
    """Options of the classifier."""
    teen: Annotated[float, Ge(0), Le(1)] = 0.0
    """TEEN calibration: share of every new prototype that is taken from the base prototypes it resembles. 0: none; the
    paper has 0.1 for CIFAR-100."""
    teen_scale: Annotated[float, Gt(0)] = 16.0
    """By what cosines are multiplied before the softmax that says which base prototypes a new one resembles."""
    epochs: Annotated[int, Ge(0)] = 30
    """Passes over the training images of the base session. 0, as beside --from unless given: the network stays as it
    is, and other options of training have no meaning."""

    @classmethod
    def resolve(cls, given: Mapping[str, Any], inputs: Inputs = NOTHING) -> Self:
        trained = inputs.get("trained", {})
        values = {**{name: trained[name] for name in _KEPT if name in trained}, **given}
        if values.get("epochs", 0 if values.get("from_trial") is not None else None) != 0:
            return super().resolve(values, inputs)
        chosen = [name for name in _OF_TRAINING if name in given and given[name] != getattr(cls, name, None)]
        if chosen:
            rule = "left out where the network is not trained"
            found = (must(_flag(name), rule, given[name], "Add --epochs, or leave it out.") for name in chosen)
            raise UserError("\n".join(map(str, found)))
        return cls(**{**cls.carried_on(values, inputs), "epochs": 0})

    def problems(self) -> list[str]:
        found = super().problems()
        if not self.teen and self.teen_scale != type(self).teen_scale:
            found.append(f"--teen-scale must be left out without --teen; got {self.teen_scale}. Add --teen 0.1.")
        return found + without_classifier("--classifier", self.classifier)

    def requires(self) -> Mapping[str, Requirement]:
        """The trial whose base session is this one's too: what comes after it is all that differs."""
        if self.from_trial is not None or not self.epochs:
            return {}
        cls, shots = type(self), min(self.shots, type(self).shots)  # no more than every class is sure to have
        later = {"ways": cls.ways, "shots": shots, "teen": cls.teen, "teen_scale": cls.teen_scale}
        first = replace(self, **later, classifier=cls.classifier, classifier_options={})
        return {} if first == self else {"trained": Requirement(experiment="fewshot.incremental", config=first)}

    @property
    def trains(self) -> bool:
        """Whether the base session is this trial's own."""
        return self.epochs > 0 and not self.requires()

    def sessions(self) -> SessionOptions:
        """The part of it that says which classes and images come when."""
        return SessionOptions(**{each.name: getattr(self, each.name) for each in fields(SessionOptions)})


def _flag(name: str) -> str:
    return f"--{name.removesuffix('_options').replace('_', '-')}" + (".*" if name.endswith("_options") else "")
