"""Options of ``backbone.train`` and ``backbone.evaluate``; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Self, get_args

from annotated_types import Ge, Gt, Le, Lt

from engram.backbone.contract import (
    NOTHING,
    ExperimentConfig,
    Flag,
    Input,
    Inputs,
    KnownData,
    Metric,
    OptionsOf,
    Registered,
    Requirement,
    Scalar,
    Seed,
    SplitName,
)
from engram.backbone.errors import UserError, must
from engram.backbone.experiments.network_configs import NetworkConfig, other_network
from engram.backbone.experiments.recipes import recipe
from engram.backbone.objectives.asking import around, asked, beginning, lacking, without_validation
from engram.backbone.objectives.options import ObjectiveOptions
from engram.backbone.training.options import MOVING, TrainingOptions


def accuracy(split: SplitName, network: str = "", **more: Any) -> Metric:
    """The metric of the accuracy on a split; ``network`` names the one meant where a trial has several."""
    name = f"{network}/{split}/accuracy".lstrip("/")
    return Metric(name=name, split=split, of="accuracy", unit="fraction", direction="max", **more)


def loss(split: SplitName, **more: Any) -> Metric:
    """The mean loss on a split."""
    return Metric(name=f"{split}/loss", split=split, of="loss", unit="nat", direction="min", **more)


def early_exit(network: str = "") -> tuple[Metric, ...]:
    """Of a network with steps: the fewest mean steps that keep 99 % of the accuracy of all of them, on validation
    images, and what is right on the test images with these.
    """
    stems = {"accuracy": ("fraction", "max"), "mean_steps": ("count", "min"), "share_of_steps": ("fraction", "min")}
    prefix = f"{network}/test/".lstrip("/")
    return tuple(
        Metric(
            name=f"{prefix}early_exit_{of}",
            split="test",
            of=f"early_exit_{of}",
            unit=unit,
            direction=direction,  # type: ignore[arg-type]
            optional=True,
        )
        for of, (unit, direction) in stems.items()
    )


TRAIN_METRICS = (
    accuracy("test", primary=True),
    loss("test"),
    accuracy("validation", optional=True),
    loss("validation", optional=True),
    loss("train"),
    *early_exit(),
    Metric(name="parameters", unit="count", direction="min"),
    Metric(name="images_per_second", unit="1/s", direction="max", timed=True),
    Metric(name="train_seconds", unit="s", direction="min", timed=True),
)

_USED = ("train_share", "share_seed")
_OF_A_NETWORK = ("dataset", "backbone", "adapter", "head")
FINE_TUNING = 0.2  # learning rate of a network that is trained already, relative to that of a fresh one


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TrainingOptions, ObjectiveOptions, NetworkConfig):
    """Train a network on images.

    Values left out come from the recipe of the network and dataset (``backbone/experiments/recipes.py``); with
    ``--from TRIAL`` the recipe's learning rate becomes a fifth.
    """

    version: ClassVar[int] = 2
    metrics: ClassVar[tuple[Metric, ...]] = TRAIN_METRICS
    trains_first: ClassVar[bool] = True
    """Whether a network is trained first where an objective begins from one."""

    train_share: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of the images left to train on that is used, of every class alike. Test and validation images stay the
    same. Beside --from that of the trial, on the same data set."""
    share_seed: Seed | None = None
    """Seed by which they are drawn. None: that of the trial, or beside --from the one that drew its images."""
    head: Annotated[str | None, Registered("heads")] = None
    """What makes logits of features: see ``engram list heads``. By default linear, or beside --from that of the trial;
    another one than that starts afresh."""
    head_options: Annotated[Mapping[str, Scalar], OptionsOf("head")] = field(default_factory=dict)
    """Options of the head."""
    teacher: Annotated[str | None, Input("teacher")] = None
    """Learn from the outputs of this trained trial as well."""
    distill: Annotated[float, Gt(0), Le(1)] = 0.5
    """Share of the loss that is the difference to the teacher's outputs."""
    temperature: Annotated[float, Gt(0)] = 2.0
    """Divides the logits of both before they are compared; above 1 the teacher's small probabilities count more."""
    tet: Annotated[float, Ge(0), Lt(1)] | None = None
    """Temporal efficient training: the mean of the losses of every step's output in place of the loss of the read-out;
    of it, this share draws outputs to 1. None: the loss of the read-out. With one step both are the same."""
    discount: Annotated[float, Gt(0), Le(1)] | None = None
    """The losses of every step's output in place of that of the read-out, as with --tet, the one k steps before the
    last times this to the power of k, divided by the sum of these weights; 1 is --tet 0. None: no step is
    discounted."""
    reference: Annotated[str | None, Input("reference")] = None
    """The trained trial from which an objective begins that looks at a first network's answers; data, network and head
    are as there, unless others are given. None: such a network is trained first, as this one is but with the
    cross-entropy and without --balance."""
    reference_epochs: Annotated[int, Ge(1)] | None = None
    """How many epochs that first network is trained. None: as many as this one."""
    balance: str | None = None
    """A column of the data, or ``label``: every batch shows as many images of each of its values. None: every image
    once in a pass."""

    @classmethod
    def recipe(cls, given: Mapping[str, Any]) -> dict[str, Scalar]:
        """The training values of the network and dataset that differ from the defaults."""
        backbone, dataset = given.get("backbone", cls.backbone), given.get("dataset", cls.dataset)
        values = recipe(backbone, dataset, given.get("optimizer"))
        if given.get("from_trial") is not None:
            values["lr"] = FINE_TUNING * float(values.get("lr", cls.lr) or 0)
        return values

    @classmethod
    def resolve(cls, given: Mapping[str, Any], inputs: Inputs = NOTHING) -> Self:
        values = cls.carried_on(_as_in_reference(given, inputs.get("reference", {})), inputs)
        trained = inputs.get("trained", {})
        if values.get("dataset") == trained.get("dataset"):
            values = {**{name: trained[name] for name in _USED if trained.get(name) is not None}, **values}
        if values.get("train_share", 1.0) == 1:
            values["share_seed"] = given.get("share_seed")
        elif values.get("share_seed") is None:
            values["share_seed"] = values.get("seed", cls.seed)
        if values.get("from_trial") is None and values.get("head") is None:
            values["head"] = "linear"
        values = {**cls.recipe(values), **values}
        if not any(values.get(name, getattr(cls, name)) for name in MOVING):
            values.pop("border", None)  # no other trial
        return cls(**values)

    def problems(self) -> list[str]:
        found = []
        if self.train_share == 1 and self.share_seed is not None:
            rule = "left out where all training images are used"
            found.append(str(must("--share-seed", rule, self.share_seed, "Add --train-share, or leave it out.")))
        given = [name for name in ("distill", "temperature") if getattr(self, name) != getattr(type(self), name)]
        if self.teacher is None and given:
            got = getattr(self, given[0])
            found.append(f"--{given[0]} must be left out without a teacher; got {got}. Add --teacher.")
        return [*found, *self._reference_problems(), *self._objective_problems()]

    def _reference_problems(self) -> list[str]:
        if self.begins_from_reference:
            if self.reference is None or self.reference_epochs is None:
                return []
            rule = "left out beside --reference, which is trained"
            return [str(must("--reference-epochs", rule, self.reference_epochs, "Drop one of the two."))]
        asked = [name for name in ("reference", "reference_epochs") if getattr(self, name) is not None]
        rule = f"left out beside the objective {self.objective}, which begins from no other network"
        return [str(must(f"--{name.replace('_', '-')}", rule, getattr(self, name), "Leave it out.")) for name in asked]

    def _objective_problems(self) -> list[str]:
        """What the objective asks for and is not to be had here, whatever the data are."""
        asks, found = asked(self.objective, self.objective_options)
        given = [flag for flag, value in (("--tet", self.tet), ("--discount", self.discount)) if value is not None]
        others = [*given, *(["--teacher"] if self.teacher is not None else [])]
        problems = around(self.objective, asks, others)
        if not self.trains_first and self.reference is None:
            problems += beginning(self.objective, asks)
        if asks.validation and not self.validation:
            problems.append(without_validation(self.objective))
        if given and asks.wants:
            got, remedy = f"{self.objective}, which wants {' and '.join(asks.wants)}", f"Leave out {given[0]}."
            problems.append(must(f"the objective beside {given[0]}", "one that looks at logits alone", got, remedy))
        if self.discount not in (None, 1.0) and not asks.by_rows and not asks.by_itself:
            got, remedy = f"{self.objective}, which is none", "Use --tet 0: all steps alike."
            problems.append(must("the objective beside --discount", "a mean of losses of rows", got, remedy))
        if self.teacher is not None and "predictions" in asks.wants:
            got, remedy = f"{self.objective}, which wants predictions", "Leave out --teacher."
            problems.append(must("the objective beside --teacher", "one that looks at logits", got, remedy))
        return [*found, *map(str, problems)]

    def data_problems(self, known: KnownData) -> list[str]:
        asks, _ = asked(self.objective, self.objective_options)
        return list(map(str, lacking(asks.columns, known.columns)))

    @property
    def begins_from_reference(self) -> bool:
        """Whether the objective begins from what a first network answers."""
        return asked(self.objective, self.objective_options)[0].reference

    def requires(self) -> Mapping[str, Requirement]:
        if self.reference is not None or not self.begins_from_reference:
            return {}
        return {"reference": self.first()}

    def first(self) -> Requirement:
        """The training of the network that an objective begins from."""
        values = {each.name: getattr(self, each.name) for each in fields(TrainConfig)}
        return Requirement(experiment="backbone.train", config=TrainConfig(**{**values, **self.as_reference()}))

    def as_reference(self) -> dict[str, Any]:
        """What is different in that training."""
        return {
            "objective": ObjectiveOptions.objective,
            "objective_options": {},
            "reference_epochs": None,
            "epochs": self.reference_epochs or self.epochs,
            "balance": None,
        }


def _as_in_reference(given: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, and of the first network's data, network and head those in place of which nothing else was given.

    Raises:
        UserError: other images are held out of the same data.
    """
    found = dict(given)
    for name in () if given.get("from_trial") is not None else _OF_A_NETWORK:
        if name in first and given.get(name, first[name]) == first[name]:
            both = first.get(f"{name}_options", {}), given.get(f"{name}_options", {})
            found |= {name: first[name], f"{name}_options": {**both[0], **both[1]}}
    if "dataset" in first and found.get("dataset", TrainConfig.dataset) == first["dataset"]:
        held = first.get("validation", TrainConfig.validation)
        if found.setdefault("validation", held) != held:
            rule = "that of the trial beside --reference, whose other images were trained on"
            raise must("--validation", rule, found["validation"], f"Use {held:g}, or leave it out.")
        found = {**{name: first[name] for name in _USED if first.get(name) is not None}, **found}
    return found


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(ExperimentConfig):
    """Score a trained network on any data, with the preprocessing it was trained with."""

    version: ClassVar[int] = 2
    metrics: ClassVar[tuple[Metric, ...]] = (
        *(accuracy(split, primary=True, optional=True) for split in get_args(SplitName)),
        *(loss(split, optional=True) for split in get_args(SplitName)),
        Metric(name="images", unit="count", direction="max"),
        *early_exit(),
    )
    renamed: ClassVar[Mapping[str, str]] = {"accuracy": "{split}/accuracy", "loss": "{split}/loss"}

    from_trial: Annotated[str | None, Flag("from"), Input("trained")] = None
    """The trained trial: its id, the beginning of it, its folder, or models:/NAME@ALIAS."""
    backbone: Annotated[str, Registered("backbones")] | None = None
    """In place of a trial, a network that comes as a file with its weights (``nir:FILE``): see ``engram list
    backbones``."""
    backbone_options: Annotated[Mapping[str, Scalar], OptionsOf("backbone")] = field(default_factory=dict)
    """Options of that network."""
    dataset: Annotated[str, Registered("datasets", training=False)] | None = None
    """What to score on; by default what the trial was trained on."""
    dataset_options: Annotated[Mapping[str, Scalar], OptionsOf("dataset")] = field(default_factory=dict)
    """Options of the dataset."""
    split: SplitName = "test"
    """Which images, and the first word of the scores' names; a source that has no split of its own (one parquet file,
    say) is always scored whole."""

    @classmethod
    def resolve(cls, given: Mapping[str, Any], inputs: Inputs = NOTHING) -> Self:
        trained = inputs.get("trained", {})
        if problems := other_network(given, trained):
            raise UserError("\n".join(map(str, problems)))
        said = ("backbone", "backbone_options") if trained else ()
        return cls(**{name: value for name, value in given.items() if name not in said})

    def problems(self) -> list[str]:
        if self.backbone is None:
            if self.from_trial is None:
                return ["--from must be a trained trial; got nothing. Train one with: engram run backbone.train"]
            return []
        found: list[UserError] = []
        if ":" not in self.backbone:
            rule = "a network that comes with its weights, as nir:FILE does"
            found.append(must("--backbone", rule, self.backbone, "Train it: engram run backbone.train"))
        if self.dataset is None:
            found.append(must("--dataset", "named beside --backbone", "nothing", "See: engram list datasets"))
        return list(map(str, found))
