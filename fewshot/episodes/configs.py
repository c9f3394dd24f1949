"""Options of ``fewshot.episodes``; no torch here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal, Self

from annotated_types import Ge, Gt, Lt

from engram.backbone.contract import NOTHING, Inputs, Metric, OptionsOf, Registered, Scalar
from engram.backbone.errors import UserError, must
from engram.backbone.experiments.configs import FINE_TUNING, accuracy
from engram.backbone.experiments.network_configs import NetworkConfig
from engram.backbone.registry import Registry
from engram.backbone.training.options import MOVING, TrainingOptions
from engram.fewshot.metrics import ci95, share

Training = Literal["episodic", "classifier", "none"]


class Span:
    """Marks an option that holds a whole number, or two that it lies between: ``5`` or ``5-20``."""

    def __init__(self, flag: str, least: int) -> None:
        self.flag, self.least = flag, least

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self.checked, handler(source))

    def checked(self, value: Any) -> str:
        """The text of a span.

        Raises:
            UserError: it is none.
        """
        text = str(value).replace(" ", "")
        if not isinstance(value, bool) and re.fullmatch(r"\d{1,9}(-\d{1,9})?", text):
            first, last = between(text)
            if self.least <= first <= last:
                return str(first) if first == last else f"{first}-{last}"
        rule = f"a whole number of at least {self.least}, or two such as {self.least}-{self.least + 15}"
        raise must(self.flag, rule, value, "Write one number, or the smaller one first.")


def between(text: str) -> tuple[int, int]:
    """Both ends of a span.

    >>> between("5"), between("5-20")
    ((5, 5), (5, 20))
    """
    first, _, last = text.partition("-")
    return int(first), int(last or first)


METRICS = (
    accuracy("test", primary=True, optional=True),
    share("test", "transductive_accuracy", primary=True),
    ci95("test"),
    ci95("test", "transductive_accuracy"),
    accuracy("validation", optional=True),
    share("validation", "transductive_accuracy"),
    Metric(name="episodes_per_second", unit="1/s", direction="max", timed=True),
    Metric(name="parameters", unit="count", direction="min"),
    Metric(name="train_seconds", unit="s", direction="min", timed=True, optional=True),
)

_AFTER: Mapping[str, Literal["linear", "cosine"]] = {
    "fewshot.simpleshot": "linear",
    "fewshot.baseline++": "cosine",
    "fewshot.tim": "linear",
}
"""Heads that were made for the features of a classifier, and that classifier's."""
_OF_TRAINING = tuple(option.name for option in fields(TrainingOptions) if option.name != "seed")
_OF_EPISODES = ("train_turns", "train_ways", "train_shots", "train_queries", "train_episodes", "train_together")
_RECIPES: Mapping[str, Mapping[str, int]] = {"glyphs": {"train_episodes": 120}}
"""By data set, what differs from the defaults: a minute or two on two cores."""
_UNUSED: Mapping[Training, tuple[str, ...]] = {
    "episodic": ("epochs", "batch_size", "classifier"),
    "classifier": _OF_EPISODES,
    "none": (*_OF_TRAINING, *_OF_EPISODES, "classifier"),
}
"""What has no meaning in each way to train."""


@dataclass(frozen=True, kw_only=True)
class EpisodesConfig(TrainingOptions, NetworkConfig):
    """Classify classes never seen before from a few labelled images of each, in many small tasks (episodes).

    Classes to train, choose and test on are different ones: the data set's own parts, or its classes dealt out. The
    accuracy is the mean over episodes of the test classes, with its 95 % interval.
    """

    version: ClassVar[int] = 1
    metrics: ClassVar[tuple[Metric, ...]] = METRICS

    dataset: Annotated[str, Registered("datasets", training=False)] = "glyphs"
    """Where classes come from: see ``engram list datasets``. Beside --from that of the trial, unless another one is
    given."""
    backbone: Annotated[str, Registered("backbones")] = "conv4"
    """The network: see ``engram list backbones``. Beside --from that of the trial."""
    validation: Annotated[float, Ge(0), Lt(1)] = 0.2
    """Share of the training classes held out to choose options by, where the data set has no such part of its own; 0
    trains on all of them, those of that part too. Beside --from that of the trial."""
    ways: Annotated[str, Span("--ways", 2)] = "5"
    """Classes of an episode; 5-20 draws their number for every episode."""
    shots: Annotated[str, Span("--shots", 1)] = "1"
    """Labelled images of each class; 1-5 draws their number for every episode."""
    queries: Annotated[int, Ge(1)] = 15
    """Images of each class to classify."""
    episodes: Annotated[int, Ge(2)] = 1000
    """Test episodes; as many are drawn of the validation classes."""
    within: str | None = None
    """A column of the data, or several with commas (``alphabet``): the classes of an episode have its value in common,
    which makes them harder to tell apart."""
    head: Annotated[str, Registered("heads", support=True)] = "fewshot.prototype"
    """What classifies queries by the labelled images: see ``engram list heads``. Beside --from that of the trial, where
    it is one that can."""
    head_options: Annotated[Mapping[str, Scalar], OptionsOf("head")] = field(default_factory=dict)
    """Options of the head."""
    training: Training = "episodic"
    """episodic: by --train-episodes of the training classes, with the head; classifier: in --epochs over all training
    classes at once, with --classifier, and the head afterwards; none: the network is taken as it is. By default none
    beside --from and --weights, classifier for simpleshot, baseline++ and tim, episodic for other heads."""
    classifier: Literal["linear", "cosine"] = "linear"
    """What --training classifier puts behind the features. By default cosine for baseline++."""
    train_ways: Annotated[int, Ge(2)] | None = None
    """Classes of a training episode. None: 60, or all where there are fewer."""
    train_shots: Annotated[int, Ge(1)] | None = None
    """Labelled images of each class of a training episode. By default as many as --shots, of a span the most."""
    train_queries: Annotated[int, Ge(1)] = 5
    """Images of each class to classify in a training episode."""
    train_episodes: Annotated[int, Ge(1)] = 2000
    """Episodes to train on. By default 120 for glyphs."""
    train_together: Annotated[int, Ge(1)] = 1
    """Training episodes a step."""
    train_turns: bool = False
    """Train on every class in its quarter turns as well, each a class of its own; the column ``turn`` says which."""
    lr: Annotated[float, Gt(0)] = 2e-3
    """Peak learning rate. By default a fifth beside --from and --weights."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names in ``within``."""
        return tuple(name.strip() for name in (self.within or "").split(",") if name.strip())

    @classmethod
    def resolve(cls, given: Mapping[str, Any], inputs: Inputs = NOTHING) -> Self:
        values, registry = cls.carried_on(given, inputs), Registry.discover()
        known = inputs.get("trained", {}).get("head")
        if known is not None and values.get("head", known) == known and registry.entry("heads", known).support:
            own = inputs["trained"].get("head_options", {})
            values |= {"head": known, "head_options": {**own, **values.get("head_options", {})}}
        head = values.get("head", cls.head)
        begun = any(values.get(name) is not None for name in ("from_trial", "weights"))
        afterwards = _AFTER.get(registry.canonical("heads", head))
        values.setdefault("training", "none" if begun else "episodic" if afterwards is None else "classifier")
        values.setdefault("classifier", afterwards or cls.classifier)
        training: Training = values["training"]
        wrong = [name for name in _UNUSED["none"] if name in given and given[name] != getattr(cls, name)]
        if training == "none" and wrong:
            rule, step = "left out with --training none", "Use --training episodic, or leave it out."
            raise UserError("\n".join(str(must(_flag(name), rule, given[name], step)) for name in wrong))
        values = {**_RECIPES.get(values.get("dataset", cls.dataset).partition(":")[0], {}), **values}
        values = {name: value for name, value in values.items() if name not in _UNUSED[training]}  # no other trial
        if training == "episodic" and values.get("train_shots") is None:
            values["train_shots"] = between(str(values.get("shots", cls.shots)))[1]
        if begun and training != "none":
            values.setdefault("lr", FINE_TUNING * cls.lr)
        if not any(values.get(name, getattr(cls, name)) for name in MOVING):
            values.pop("border", None)  # no other trial
        return cls(**values)

    def problems(self) -> list[str]:
        entry = Registry.discover().entry("heads", self.head)
        if self.training == "episodic" and entry.transductive:
            step = "Use --training classifier, or none with --from."
            return [str(must("--training", f"another one for {self.head}, which is transductive", "episodic", step))]
        return []


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
