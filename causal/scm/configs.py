"""Options of ``causal.scm``; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from engram.backbone.contract import NOTHING, Inputs, Metric, OptionsOf, Registered, Scalar
from engram.backbone.errors import UserError, must
from engram.backbone.experiments.configs import TRAIN_METRICS, TrainConfig

DATASET = "shapes-scm"
Estimator = Literal["plain", "exact", "nwgm", "attention", "averaged", "frontdoor"]


class _Parts(NamedTuple):
    head: str
    mode: str
    objective: str


_ESTIMATORS: Mapping[Estimator, _Parts] = {
    "plain": _Parts("linear", "", "cross-entropy"),
    "exact": _Parts("causal.backdoor", "exact", "backdoor"),
    "nwgm": _Parts("causal.backdoor", "nwgm", "backdoor"),
    "attention": _Parts("causal.backdoor", "attention", "cross-entropy"),
    "averaged": _Parts("causal.backdoor", "exact", "cross-entropy"),
    "frontdoor": _Parts("causal.frontdoor", "", "frontdoor"),
}
_RECIPE: Mapping[str, Scalar] = {"epochs": 4, "lr": 5e-3, "weight_decay": 0.0}


def _distance(of: str, **more: Any) -> Metric:
    return Metric(name=f"test/{of}", split="test", of=of, unit="", direction="min", bounds=(0.0, 1.0), **more)


@dataclass(frozen=True, kw_only=True)
class ScmConfig(TrainConfig):
    """How far are a network's answers from P(y | do(x)), where that is known?

    Networks are trained on observed pictures of ``shapes-scm``. What is compared is the mean of the answers to all test
    pictures of a shape x: with P(y | do(x)), which the model of the data gives, and with P(y | x), which it gives as
    well. A distance is a total variation, from 0 to 1.
    """

    version: ClassVar[int] = 1
    metrics: ClassVar[tuple[Metric, ...]] = (
        _distance("distance_to_do", primary=True),
        _distance("largest_distance_to_do"),
        _distance("distance_to_observed"),
        _distance("distance_of_pictures_to_do"),
        Metric(name="confounding", unit="", direction="max", bounds=(0.0, 1.0)),
        Metric(name="nwgm_gap", unit="", direction="min", bounds=(0.0, 1.0), optional=True),
        *(Metric(**{**vars(metric), "primary": False}) for metric in TRAIN_METRICS),
    )

    dataset: Annotated[str, Registered("datasets")] = DATASET
    """Pictures whose causes are known: shapes-scm."""
    dataset_options: Annotated[Mapping[str, Scalar], OptionsOf("dataset")] = field(default_factory=dict)
    """Options of the dataset; its graph is by default that of the estimator."""
    backbone: Annotated[str, Registered("backbones")] = "vgg-tiny"
    """The network: see ``engram list backbones``. Beside --from that of the trial."""
    head: Annotated[str | None, Registered("heads", compared=True)] = None
    """What makes logits of features: see ``engram list heads``. By default that of the estimator, or beside --from that
    of the trial; another one than that starts afresh."""
    estimator: Estimator | None = None
    """Head and objective in one word. plain: a linear head. exact, nwgm: causal.backdoor in that mode, trained on the
    context. attention: causal.backdoor in that mode, trained by cross-entropy, as published. averaged: the exact mode,
    trained by the cross-entropy of its mean. frontdoor: causal.frontdoor, trained on the mediator. None: exact, unless
    a head, an objective or a trial is named."""

    @classmethod
    def recipe(cls, given: Mapping[str, Any]) -> dict[str, Scalar]:
        fresh = given.get("from_trial") is None and given.get("optimizer") is None
        return {**super().recipe(given), **(_RECIPE if fresh else {})}

    @classmethod
    def resolve(cls, given: Mapping[str, Any], inputs: Inputs = NOTHING) -> Self:
        values = dict(given)
        named = [name for name in ("head", "objective", "from_trial") if values.get(name) is not None]
        if values.get("estimator") is None and not named:
            values["estimator"] = "exact"
        if (estimator := values.get("estimator")) is not None:
            values = _named(estimator, values)
        return super().resolve(values, inputs)

    def problems(self) -> list[str]:
        found = super().problems()
        if self.dataset != DATASET:
            rule, remedy = f"{DATASET}, whose causes are known", "Leave it out."
            found.append(str(must("--dataset", rule, self.dataset, remedy)))
        return found


def _named(estimator: Estimator, given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, and what the estimator is made of.

    Raises:
        UserError: one line for everything given that makes another one.
    """
    parts = _ESTIMATORS[estimator]
    own = {"mode": parts.mode} if parts.mode else {}
    made: dict[str, Any] = {"head": parts.head, "objective": parts.objective}
    held = given.get("head_options", {})
    other = {f"--{name}": given[name] for name, value in made.items() if given.get(name, value) != value}
    other |= {f"--head.{name}": held[name] for name, value in own.items() if held.get(name, value) != value}
    if other:
        rule = f"as --estimator {estimator} has it"
        raise UserError("\n".join(str(must(flag, rule, got, "Drop one of the two.")) for flag, got in other.items()))
    usual = {} if own.get("mode") == "exact" else own
    graph = {"graph": "frontdoor"} if estimator == "frontdoor" else {}
    return {
        **given,
        **made,
        "head_options": {**held, **usual},
        "dataset_options": {**graph, **given.get("dataset_options", {})},
    }
