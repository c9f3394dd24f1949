"""Options of ``causal.shift``; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Self

from annotated_types import Ge, Lt

from engram.backbone.contract import NOTHING, Inputs, KnownData, Metric, Registered, Requirement
from engram.backbone.data.known import ENVIRONMENT, GROUP
from engram.backbone.errors import UserError, must
from engram.backbone.experiments.configs import TRAIN_METRICS, TrainConfig, accuracy
from engram.causal.shift.known import held_out_problems, left_out_problems, without_column
from engram.causal.shift.policies import POLICIES, Scored, Selection
from engram.causal.shift.search import drawn

EXPERIMENT = "causal.shift"
WORST, ADJUSTED = "worst_group/accuracy", "adjusted/accuracy"


def _of_groups(of: str, split: Any = "test") -> Metric:
    return Metric(name=f"{split}/{of}", split=split, of=of, unit="fraction", direction="max", optional=True)


METRICS = (
    *TRAIN_METRICS,
    accuracy("train"),
    _of_groups(WORST),
    _of_groups(ADJUSTED),
    _of_groups("oracle/accuracy"),
    _of_groups(WORST, "validation"),
)


@dataclass(frozen=True, kw_only=True)
class ShiftConfig(TrainConfig):
    """Train on some environments, test on others, and say how every group and every environment fares.

    Groups and environments are columns of the data. Three policies of choosing a network stand side by side in the
    table ``policies`` of every trial; ``engram select SWEEP`` chooses among the trainings of a sweep by each of them.
    """

    version: ClassVar[int] = 1
    metrics: ClassVar[tuple[Metric, ...]] = METRICS

    dataset: Annotated[str, Registered("datasets")] = "coloured-digits:irm"
    """What to train on, with a column ``environment`` or ``group``: see ``engram list datasets``. Beside --from that of
    the trial."""
    held_out: tuple[str, ...] = ()
    """Environments that are not trained on: all of their images are tested on. Without, the data's test images are.
    Beside --from those of the trial."""
    selection: Selection = "train"
    """Which network is kept and scored. train: the one best on validation images of the environments trained on; loo:
    at the moment at which networks that leave out one of these environments did best on it; oracle: the last, as it is
    chosen among trainings by images of the test environment, which nobody has who does not know the shift."""
    score: Scored = "accuracy"
    """What is best on validation images. accuracy: the mean of the environments' accuracies; worst_group: the accuracy
    of the group with the lowest."""
    leave_out: tuple[str, ...] = ()
    """Environments to train on that are left out in turn, for leave-one-out: a training more for each. One that is in
    --held-out is passed over, so that a grid can name all."""
    evaluations: Annotated[int, Ge(1)] = 10
    """How many times a network is scored while it is trained, after whole passes; policies choose among these."""
    oracle_share: Annotated[float, Ge(0), Lt(1)] = 0.2
    """Share of the test images that oracle selection looks at; they are not scored."""
    train_steps: Annotated[int, Ge(1)] | None = None
    """Steps of the training in place of --epochs; what is called an epoch is then the steps between two evaluations."""
    draw: Annotated[int, Ge(0)] | None = None
    """Which of the random draws of DomainBed's search for learning rate, batch size and options of the objective, the
    same in every trial of a seed; 0: its defaults. What is given is not drawn. None: nothing is."""

    @classmethod
    def resolve(cls, given: Mapping[str, Any], inputs: Inputs = NOTHING) -> Self:
        values = dict(given)
        if (draw := values.get("draw")) is not None:
            objective, seed = values.get("objective", cls.objective), values.get("seed", cls.seed)
            own = values.get("objective_options", {})
            steps = None if {"penalty", "anneal"} & {*own} else values.get("train_steps")
            found = drawn(objective, seed, draw, steps)
            options = {**found.pop("objective_options"), **own}
            values = {**found, **values, **({"objective_options": options} if options else {})}
        if values.get("train_steps") is not None:
            if values.get("epochs") is not None:
                raise must("--epochs", "left out beside --train-steps", values["epochs"], "Drop one of the two.")
            values["epochs"] = min(values.get("evaluations", cls.evaluations), values["train_steps"])
        for role, flag in (("trained", "--from"), ("reference", "--reference")):
            values = cls._held_out(values, inputs.get(role, {}), flag)
        held = tuple(sorted(values.get("held_out", ())))
        left = tuple(sorted(set(values.get("leave_out", ())) - set(held)))
        return super().resolve({**values, "held_out": held, "leave_out": left}, inputs)

    @classmethod
    def _held_out(cls, given: dict[str, Any], before: Mapping[str, Any], flag: str) -> dict[str, Any]:
        """What was given, and which images the trial that ``flag`` names was not trained on.

        Raises:
            UserError: it was trained on what is to be tested on.
        """
        if "dataset" not in before or given.get("dataset", before["dataset"]) != before["dataset"]:
            return given
        problems: list[UserError] = []
        held, mine = tuple(before.get("held_out", ())), tuple(sorted(given.get("held_out", ())))
        if mine and mine != held:
            rule = f"those of the trial beside {flag}, which was trained on all others"
            remedy = f"Leave it out: {', '.join(held)}." if held else "Train that one with --held-out first."
            problems.append(must("--held-out", rule, ", ".join(mine), remedy))
        share = before.get("oracle_share", given.get("oracle_share", cls.oracle_share))
        if given.get("oracle_share", share) != share:
            rule = f"that of the trial beside {flag}"
            problems.append(must("--oracle-share", rule, given["oracle_share"], "Leave it out."))
        if given.get("leave_out"):
            rule = f"left out beside {flag}, whose network was trained on these images"
            problems.append(must("--leave-out", rule, ", ".join(given["leave_out"]), "Leave it out."))
        if problems:
            raise UserError("\n".join(map(str, problems)))
        return {**given, "held_out": held, "oracle_share": share}

    def problems(self) -> list[str]:
        found: list[UserError] = []
        for name in ("held_out", "leave_out"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                flag = f"--{name.replace('_', '-')}"
                found.append(must(flag, "different environments", ", ".join(values), "Name each once."))
        if self.selection == "loo" and not self.leave_out:
            rule = "all environments that are trained on, beside --selection loo"
            found.append(must("--leave-out", rule, "none", "Name them: table 'environments' of any trial has them."))
        if self.selection == "train" and not self.validation:
            remedy = "Use --validation 0.1, or --selection oracle."
            found.append(must("--validation", f"above 0 for {POLICIES['train']}", 0, remedy))
        if self.selection != "train" and self.score != "accuracy":
            rule = f"left out beside --selection {self.selection}"
            found.append(must("--score", rule, self.score, "Drop one of the two."))
        if self.reference_epochs is not None and self.train_steps is not None:
            rule = "left out beside --train-steps"
            found.append(must("--reference-epochs", rule, self.reference_epochs, "Use --epochs."))
        return [*super().problems(), *map(str, found)]

    def data_problems(self, known: KnownData) -> list[str]:
        columns, found = known.columns, super().data_problems(known)
        if ENVIRONMENT not in columns and (self.held_out or GROUP not in columns):
            return [*found, str(without_column(columns, bool(self.held_out)))]
        trained = columns.get(ENVIRONMENT)
        if trained is None:
            return found
        everywhere = tuple(dict.fromkeys((*trained, *known.others.get(ENVIRONMENT, ()))))
        problems = held_out_problems(self.held_out, trained, everywhere)
        if not problems:
            problems = left_out_problems(self.leave_out, tuple(each for each in trained if each not in self.held_out))
        return [*found, *map(str, problems)]

    def requires(self) -> Mapping[str, Requirement]:
        """The first network that the objective begins from, and those that leave an environment out.

        A drawn batch holds so many images of every environment that one environment fewer makes a smaller batch.
        """
        needed, changed = dict(super().requires()), dict[str, Any]()
        if self.draw is not None and (trained := len(self.leave_out)) > 1:
            changed["batch_size"] = self.batch_size * (trained - 1) // trained
        for role, name in self.left_out_roles.items():
            held = tuple(sorted((*self.held_out, name)))
            needed[role] = Requirement(
                experiment=EXPERIMENT, config=ShiftConfig(**self._beside(held_out=held, **changed))
            )
        return needed

    @property
    def left_out_roles(self) -> Mapping[str, str]:
        """Each environment that is left out in turn, by the role of the trial that does so."""
        return {f"left_out_{number}": name for number, name in enumerate(self.leave_out, 1)}

    def first(self) -> Requirement:
        """The network that an objective begins from has not seen the environments held out either."""
        config = ShiftConfig(**{**self._beside(), **self.as_reference()})
        return Requirement(experiment=EXPERIMENT, config=config)

    def _beside(self, **changed: Any) -> dict[str, Any]:
        """The values of a training beside this one, of which the last network is kept."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**values, "leave_out": (), "selection": "oracle", "score": "accuracy", **changed}
