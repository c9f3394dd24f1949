"""``causal.shift``: train on some environments, test on others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from engram.backbone.atomic import write_atomically
from engram.backbone.contract import Result, Row, Sampler, Services
from engram.backbone.data.columns import ENVIRONMENT, GROUP
from engram.backbone.data.load import Data
from engram.backbone.data.sets import Split
from engram.backbone.experiments.beginning import Beginning
from engram.backbone.experiments.train import Train, TrainState
from engram.backbone.nets.classifier import Classifier
from engram.backbone.training.loop import Trainer
from engram.causal.shift.answered import answered, mean_of, worst
from engram.causal.shift.configs import ShiftConfig
from engram.causal.shift.environments import (
    VIEW,
    Divided,
    Division,
    divide,
    environments,
    require_columns,
)
from engram.causal.shift.known import left_out_problems
from engram.causal.shift.policies import ORACLE, SCORE, TEST, chosen, left_out, of_environment, table
from engram.causal.shift.report import moments, tested
from engram.causal.shift.stretches import Stretches

EVALUATIONS = "evaluations"
"""The table of what a network scores while it is trained, and the file that trials of others read it from."""


@dataclass
class ShiftState(TrainState):
    """Where a training stands.

    Attributes:
        evaluations: what the network scored so far.
        kept: the weights of the one chosen so far; None where the last is chosen.
    """

    evaluations: list[Row] = field(default_factory=list)
    kept: dict[str, Tensor] | None = None


class Shift(Train):
    """`engram.backbone.experiments.train.Train` on some environments, scored by groups and environments."""

    def __init__(self, config: ShiftConfig, services: Services) -> None:
        super().__init__(config, services)
        self.config: ShiftConfig = config
        self.alone = bool(config.held_out)
        self.divided: Divided

    def load(self) -> Data:
        data = super().load()
        require_columns(data)
        return data

    def begin(self, data: Data) -> Beginning:
        """The network, and the images as they are divided: for a trained one as it saw them."""
        how = Division(self.config.held_out, self.config.oracle_share)
        if "trained" not in self.services.inputs:
            self.divided = divide(data, how)
            beginning = super().begin(self.divided.data)
            beginning.view = how.reference()
        else:
            beginning = super().begin(data)
            again = beginning.view is not None and beginning.view.name == VIEW
            self.divided = divide(data if again else beginning.data, how)
            if not again:
                beginning.data = self.divided.data
        return beginning

    def start(self) -> ShiftState:
        beginning = self.begun()
        self.without = self._without(environments(beginning.data.train))
        return ShiftState(beginning.data, beginning, self.trainer(beginning), [])

    def trainer(self, beginning: Beginning, **more: Any) -> Trainer:
        if self.config.train_steps is not None:
            more["steps"] = self.config.train_steps
        return super().trainer(beginning, **more)

    def sampler(self) -> Sampler:
        c, passes = self.config, super().sampler()
        if c.train_steps is None:
            return passes
        return Stretches(passes, -(-c.train_steps // c.epochs) * c.batch_size)

    def _without(self, trained: Sequence[str]) -> list[float] | None:
        """What leave-one-environment-out goes by at every evaluation; None where no environment was left out.

        Raises:
            UserError: the environments left out are not those that are trained on.
        """
        roles = self.config.left_out_roles
        if not roles:
            return None
        if problems := left_out_problems([*roles.values()], trained):
            raise problems[0]
        return left_out({name: _evaluations(self.services.inputs[role]) for role, name in roles.items()})

    def validate(self, state: TrainState) -> dict[str, float]:
        """Score the network when a further share of the training is done, and keep it where it is the one chosen."""
        assert isinstance(state, ShiftState)
        c, trainer = self.config, state.trainer
        done = c.epochs if trainer.done else trainer.progress.step // trainer.steps_per_epoch
        times = min(c.evaluations, c.epochs)
        if done * times // c.epochs == (done - 1) * times // c.epochs:
            return {}
        row, logged = self._evaluation(trainer.scored_model, state.data, done)
        state.evaluations.append(row)
        place = len(state.evaluations) - 1
        if c.selection != "oracle" and self._chosen(state) == place:
            state.kept = {name: value.clone() for name, value in trainer.scored_model.state_dict().items()}
        return logged

    def _chosen(self, state: ShiftState) -> int:
        """The evaluation whose network is kept, of those that there were."""
        without = None if self.without is None else self.without[: len(state.evaluations)]
        place = chosen(state.evaluations, without)[self.config.selection]
        return len(state.evaluations) - 1 if place is None else place

    def _evaluation(self, model: Classifier, data: Data, epoch: int) -> tuple[Row, dict[str, float]]:
        """What the network scores now: a row of the table, and what goes into the ledger."""
        device, precision = self.services.device, self.machine.precision
        test = answered(model, data.test, device, precision)
        row: dict[str, Any] = {"epoch": epoch}
        logged = {TEST: test.counts.accuracy}
        if data.validation is not None:
            held = answered(model, data.validation, device, precision)
            counts = held.by(ENVIRONMENT) or {"": held.counts}
            of_groups = held.by(GROUP)
            row[SCORE] = worst(of_groups or counts) if self.config.score == "worst_group" else mean_of(counts)
            row |= {f"validation/{name}/accuracy": each.accuracy for name, each in counts.items() if name}
            logged |= {"validation/accuracy": held.counts.accuracy, "validation/loss": held.loss}
            logged |= {"validation/worst_group/accuracy": worst(of_groups)} if of_groups else {}
        if self.divided.oracle is not None:
            row[ORACLE] = answered(model, self.divided.oracle, device, precision).counts.accuracy
        row[TEST] = logged[TEST]
        if of_groups := test.by(GROUP):
            row["test/worst_group/accuracy"] = logged["test/worst_group/accuracy"] = worst(of_groups)
        row |= {of_environment(name): each.accuracy for name, each in test.by(ENVIRONMENT).items()}
        return {**row, **{name: value for name, value in logged.items() if name not in row}}, logged

    def measure(self, model: Classifier, data: Data) -> Result:
        """Test the network chosen: on average, by groups and by environments."""
        device, found = self.services.device, super().measure(model, data)
        parts: dict[str, Split | None] = {"train": data.train, "validation": data.validation, "test": data.test}
        parts |= {"oracle": self.divided.oracle, "seen": self.divided.seen}
        return tested(found, {name: answered(model, part, device) for name, part in parts.items() if part is not None})

    def finish(self, state: TrainState) -> Result:
        assert isinstance(state, ShiftState)
        if state.kept is not None:
            state.trainer.scored_model.load_state_dict(state.kept)
        found = super().finish(state)
        held = state.evaluations[self._chosen(state)]
        metrics = {name: float(held[name] or 0) for name in _OF_THE_CHOSEN if name in held}
        tables = {"policies": table(state.evaluations, self.without), EVALUATIONS: state.evaluations}
        write_atomically(self.services.trial_dir / f"{EVALUATIONS}.json", json.dumps(state.evaluations).encode())
        return Result(
            metrics={**found.metrics, **metrics},
            tables={**tables, **found.tables},
            figures={**moments(state.evaluations, self.without), **found.figures},
            artifacts={**found.artifacts, EVALUATIONS: f"{EVALUATIONS}.json"},
        )

    def state_dict(self, state: TrainState) -> dict[str, Any]:
        assert isinstance(state, ShiftState)
        rows = [dict(row) for row in state.evaluations]
        return {**super().state_dict(state), "evaluations": rows, "kept": state.kept}

    def load_state_dict(self, state: TrainState, saved: Mapping[str, Any]) -> None:
        assert isinstance(state, ShiftState)
        super().load_state_dict(state, saved)
        state.evaluations[:], state.kept = saved["evaluations"], saved["kept"]


_OF_THE_CHOSEN = ("validation/accuracy", "validation/loss", "validation/worst_group/accuracy")
"""Scores while training that are reported of the network chosen, not of the last."""


def _evaluations(folder: Path) -> list[Row]:
    """What the network of a finished trial of this experiment scored while it was trained."""
    return json.loads((folder / f"{EVALUATIONS}.json").read_bytes())
