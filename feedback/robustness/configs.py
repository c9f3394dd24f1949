"""Options of ``feedback.robustness``; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, Self

from annotated_types import Ge, Gt, Le

from engram.backbone.contract import (
    EXPERIMENT,
    NOTHING,
    Flag,
    Input,
    Inputs,
    Metric,
    Requirement,
    Seed,
)
from engram.backbone.data.corruptions.options import KINDS, SEVERITIES, Occlusion, Published, Severity
from engram.backbone.errors import UserError, must
from engram.backbone.experiments.configs import FINE_TUNING, TrainConfig
from engram.feedback.flags import FeedbackConfig, options_for, with_feedback, without_feedback
from engram.feedback.robustness.control_configs import ControlConfig, Match, without_width
from engram.feedback.robustness.metrics import METRICS, SAME_FLOPS, SAME_PARAMETERS, ScoredSplit

TRAIN, CONTROL = "backbone.train", "feedback.control"
NETWORK = "network"
"""The role of the trial whose network is scored, where it is planned with this one."""
_TRAINING = tuple(each.name for each in fields(TrainConfig) if each.name not in ("seed", "from_trial", "teacher"))
_ADDED = ("adapter", "adapter_options")
Controls = Literal["both", "parameters", "flops", "none"]
_MATCHED: Mapping[Controls, Mapping[str, Match]] = {
    "both": {SAME_PARAMETERS: "parameters", SAME_FLOPS: "flops"},
    "parameters": {SAME_PARAMETERS: "parameters"},
    "flops": {SAME_FLOPS: "flops"},
    "none": {},
}


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig(FeedbackConfig):
    """Ask whether feedback pays: score a network on spoiled pictures beside itself at one step and two controls.

    The controls are feed-forward networks with as many parameters, and with as many operations an image, trained in
    the same way. Give training options with an adapter; or ``--from TRIAL``, any trial with a classifier; or ``--from
    TRIAL`` of a network without feedback, an adapter and ``--tune``: then it is trained on with the adapter, and each
    control is trained as the trial was and trained on in the same way.
    """

    version: ClassVar[int] = 1
    metrics: ClassVar[tuple[Metric, ...]] = METRICS

    from_trial: Annotated[str | None, Flag("from"), Input("trained")] = None
    """The trained trial: its id, the beginning of it, its folder, or models:/NAME@ALIAS. Options of training
    are then its own."""
    tune: Annotated[int, Ge(0)] = 0
    """Passes over the training images with the adapter that adds feedback, after those without it, at a fifth of the
    learning rate. 0: the adapter is there from the start."""
    train_seed: Seed | None = None
    """Seed of the training that --tune goes on from, so that trials of several seeds can share one. None: the trial's
    own; beside --from that trial's."""
    controls: Controls | None = None
    """Which feed-forward networks to train beside it: with as many parameters, with as many operations, both or none.
    None: both, where it is known how the network was trained and its backbone has a width."""
    split: ScoredSplit = "test"
    """Which images are scored, and the first word of the scores' names."""
    images: Annotated[int, Ge(1)] | None = None
    """How many of them, the same ones in every trial on the data. None: all."""
    kinds: tuple[Literal[Published, Occlusion], ...] = KINDS
    """Kinds of corruption, which weigh equally."""
    severities: tuple[Severity, ...] = SEVERITIES
    """How much of each, from 1 to 5."""
    attacked: Annotated[int, Ge(0)] = 0
    """How many of the images are attacked as well, by PGD and by SPSA; an answer counts as right if it is under every
    attack."""
    epsilon: Annotated[float, Gt(0), Le(1)] = 8 / 255
    """Largest change of a value in an attack; values lie between 0 and 1."""

    @classmethod
    def resolve(cls, given: Mapping[str, Any], inputs: Inputs = NOTHING) -> Self:
        trained = inputs.get("trained", {})
        if given.get("from_trial") is None:
            values = dict(vars(super().resolve(cls.spelled_out(given), inputs)))
        else:
            values = cls._of_a_trial(given, trained)
        why = _uncontrolled(values, trained)
        if values.get("controls") is None:
            values["controls"] = "none" if why else "both"
        elif why and values["controls"] != "none":
            raise must("--controls", "none here", values["controls"], f"{why} Leave it out.")
        return cls(**values)

    @classmethod
    def _of_a_trial(cls, given: Mapping[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
        """What was given beside a trial, and what follows from that."""
        tune, adapters = given.get("tune", cls.tune), given.get("adapter", ())
        held = trained.get("adapter", ())
        beside = [name for name in _TRAINING if name in given and name not in _ADDED]
        problems = [_beside(name, given[name]) for name in beside]
        if tune and (with_feedback(held) or not adapters or without_feedback(adapters)):
            rule = "beside --from given with a feedback adapter alone, for a network that has none yet"
            got = f"{tune}, with --adapter {', '.join(adapters) or 'none'} on {', '.join(held) or 'no adapter'}"
            problems.append(str(must("--tune", rule, got, "Name one with --adapter, or drop --tune.")))
        if not tune:
            added = [name for name in (*_ADDED, "steps", "connections") if given.get(name)]
            problems += [_beside(name, given[name], "Add --tune, or drop it.") for name in added]
        if given.get("train_seed") is not None:
            problems.append(str(must("--train-seed", "left out beside --from", given["train_seed"], "Leave it out.")))
        if problems:
            raise UserError("\n".join(problems))
        values = {name: trained[name] for name in _TRAINING if name in trained} | {
            name: value for name, value in given.items() if name not in _ADDED
        }
        values |= {"adapter": (*held, *adapters), "train_seed": trained.get("seed")}
        both = trained.get("adapter_options", {}), given.get("adapter_options", {})
        return cls.spelled_out({**values, "adapter_options": {**both[0], **both[1]}})

    def problems(self) -> list[str]:
        found = super().problems()
        if self.from_trial is None and self.tune and not with_feedback(self.adapter):
            step = "Add --adapter feedback.gated, or drop it."
            found.append(str(must("--tune", "left out without an adapter that adds feedback", self.tune, step)))
        if self.from_trial is None and not self.tune and self.train_seed is not None:
            found.append(str(must("--train-seed", "left out without --tune", self.train_seed, "Leave it out.")))
        for name in ("kinds", "severities"):
            values: tuple[Any, ...] = getattr(self, name)
            if not values or len(set(values)) < len(values):
                got = ", ".join(map(str, values)) or "none"
                found.append(str(must(f"--{name}", "at least one, each named once", got, "Leave it out for all.")))
        return found

    def requires(self) -> Mapping[str, Requirement]:
        """The network, unless it is a trial's, and the controls; trials with the same network share them."""
        needed = {role: self._control(match) for role, match in self.matched.items()}
        if self.tune:
            first = TrainConfig(**self._training(without_feedback(self.adapter), seed=self.first_seed))
            before = {} if self.from_trial else {"trained": Requirement(experiment=TRAIN, config=first)}
            tuned = self._training(with_feedback(self.adapter), from_trial=self.from_trial, **self._tuning())
            needed[NETWORK] = Requirement(experiment=TRAIN, config=TrainConfig(**tuned), after=before)
        elif self.from_trial is None:
            needed[NETWORK] = Requirement(experiment=TRAIN, config=TrainConfig(**self._training(self.adapter)))
        return needed

    @property
    def matched(self) -> Mapping[str, Match]:
        """What each control has in common with the network, by its role."""
        return _MATCHED[self.controls or "none"]

    @property
    def first_seed(self) -> int:
        """Of the training of what the network is, or is trained on from."""
        return self.seed if self.train_seed is None else self.train_seed

    def _control(self, match: Match) -> Requirement:
        first = ControlConfig(**self._training(self.adapter, seed=self.first_seed), match=match)
        if not self.tune:
            return Requirement(experiment=CONTROL, config=first)
        tuned = ControlConfig(**self._training(self.adapter, **self._tuning()), match=match)
        before = {"trained": Requirement(experiment=CONTROL, config=first)}
        return Requirement(experiment=CONTROL, config=tuned, after=before)

    def _tuning(self) -> dict[str, Any]:
        return {"epochs": self.tune, "lr": FINE_TUNING * self.lr}

    def _training(self, adapters: tuple[str, ...], **changed: Any) -> dict[str, Any]:
        """The values of a training like this one's with some adapters."""
        values = {name: getattr(self, name) for name in (*_TRAINING, "seed", "teacher")}
        own = options_for(self.adapter_options, adapters)
        return {**values, "adapter": adapters, "adapter_options": own, **changed}


def _uncontrolled(values: Mapping[str, Any], trained: Mapping[str, Any]) -> str:
    """Why no control can be made of a network, in one sentence; "" where one can."""
    if trained.get("from_trial") is not None:
        return "The trial of --from goes on from another one: give that one, with --adapter and --tune."
    if not with_feedback(values.get("adapter", ())):
        return "The network has no feedback."
    if values.get("weights") is not None or trained.get("weights") is not None:
        return "The weights of its file fit a network of one width."
    if trained.get(EXPERIMENT, TRAIN) != TRAIN:
        return f"The trial of --from is one of {trained[EXPERIMENT]}, which trains in its own way."
    if trained.get("teacher") is not None:
        return "The trial of --from has learned from a teacher."
    if without_width(values.get("backbone", RobustnessConfig.backbone)):
        return f"{values['backbone']} has no width."
    return ""


def _beside(name: str, value: Any, step: str = "Drop one of the two.") -> str:
    flag = "--" + name.replace("_options", ".*").replace("_", "-")
    rule = "left out beside --from, whose network is trained already"
    return str(must(flag, rule, value, step))
