"""Experiment ``fewshot.incremental``: many images of some classes, then a few of each other class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engram.backbone.contract import Centred, Result, Row, Services, SupportHead
from engram.backbone.data.trained import cautions, reference
from engram.backbone.experiments.beginning import Beginning
from engram.backbone.experiments.train import TrainState
from engram.backbone.nets.classifier import Classifier
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.backbone.saved.made import Made
from engram.backbone.saved.model import save_model
from engram.backbone.training.loop import UNIT_SECONDS
from engram.fewshot.episodes import kept
from engram.fewshot.episodes.features import Table
from engram.fewshot.episodes.saved import support_head
from engram.fewshot.incremental.base import BaseSession
from engram.fewshot.incremental.configs import IncrementalConfig
from engram.fewshot.incremental.measures import Scores, scores, summary
from engram.fewshot.incremental.report import confusion, curves, table
from engram.fewshot.incremental.sessions import Sessions
from engram.fewshot.incremental.teen import calibrate


@dataclass
class IncrementalState:
    """Where a trial stands.

    Attributes:
        beginning: the network, and how it is made again.
        training: of the base session; None where the network stays as it is.
        tables: features by name: ``train``, of the images of all sessions (`Sessions.shown`), and what is tested.
    """

    beginning: Beginning
    training: TrainState | None
    tables: dict[str, Table]

    @property
    def model(self) -> Classifier:
        return self.beginning.model if self.training is None else self.training.trainer.scored_model


class Incremental:
    """First the base session is trained, then features are taken of all images that are needed, both in units of a few
    seconds; all sessions follow from these features.
    """

    def __init__(self, config: IncrementalConfig, services: Services) -> None:
        self.config, self.services = config, services
        self.base = BaseSession(config, services)
        self.classifier = in_full(Registry.discover(), "heads", config.classifier, config.classifier_options)

    @property
    def sessions(self) -> Sessions:
        return self.base.sessions

    def start(self) -> IncrementalState:
        training = self.base.start() if self.config.trains else None
        beginning = self.base.begun() if training is None else training.beginning
        state = IncrementalState(beginning, training, self._tables())
        state.model.to(self.services.device)
        if found := self.base.cautions():
            self.services.table("caution", _rows(found))
        return state

    def step(self, state: IncrementalState) -> bool:
        training = state.training
        if training is not None and not training.trainer.done:
            self.base.step(training)
            return True
        if (part := next((name for name, table in state.tables.items() if not table.whole), None)) is not None:
            table, model, data = state.tables[part], state.model.eval(), self.base.whole
            made = (state.beginning.backbone, *state.beginning.adapters)
            kept.fill(table, model, kept.key_of(model, made, data, table.split, part), UNIT_SECONDS)
            self.services.progress(table.done, len(table.split), f"features of {part} images")
        return not all(table.whole for table in state.tables.values())

    def _tables(self) -> dict[str, Table]:
        data = self.base.whole
        found = {"train": data.train.select(self.sessions.shown), "test": data.test}
        found |= {} if data.validation is None else {"validation": data.validation}
        return {name: Table(split, self.services.device) for name, split in found.items()}

    def finish(self, state: IncrementalState) -> Result:
        model, data, sessions = state.model.eval(), self.base.whole, self.sessions
        features = {name: table.rows.cpu() for name, table in state.tables.items()}
        labels = {name: table.split.labels for name, table in state.tables.items()}
        tested = [name for name in ("test", "validation") if name in features]
        found: dict[str, list[Scores]] = {name: [] for name in tested}
        head, answers = nn.Module(), {}
        for session in range(len(sessions)):
            head, known = self.head(session, features["train"], labels["train"]), sessions.known(session)
            for name in tested:
                rows = torch.isin(labels[name], known)
                answers[name] = known[_answers(head, features[name][rows])]
                found[name].append(scores(answers[name], labels[name][rows], sessions.known(0)))
        model.head = head  # of the last session, in which every class is known and has its own number for an output
        metrics = {f"{name}/{of}": value for name in tested for of, value in summary(found[name]).items()}
        metrics |= {"parameters": float(sum(p.numel() for p in model.parameters())), **_trained(state)}
        save_model(self.services.trial_dir / "model", model, self._made(state, metrics["test/accuracy"]))
        told = [row["caution"] for row in cautions(data)] + self.base.cautions()
        return Result(
            metrics=metrics,
            tables={
                "sessions": table([len(sessions.known(i)) for i in range(len(sessions))], found),
                **({"epochs": state.training.curves} if state.training is not None else {}),
                **({"cautions": _rows(told)} if told else {}),
            },
            figures={
                "sessions": curves(found["test"]),
                **confusion(data.classes, answers["test"], labels["test"]),
            },
            artifacts={"model": "model/model.safetensors", "manifest": "model/model.json"},
        )

    def head(self, session: int, features: Tensor, labels: Tensor) -> nn.Module:
        """The classifier after a session, whose outputs are the classes met by then, in ascending order.

        features: [n, F] of the images of all sessions (`Sessions.shown`); labels: [n] their classes.
        """
        c, sessions = self.config, self.sessions
        trained = self.services.inputs.get("trained")
        maker = support_head(self.classifier, features.shape[1], c.base_classes, trained)
        assert isinstance(maker, SupportHead)  # the registry says so
        rows, known = sessions.session_of <= session, sessions.known(session)
        if isinstance(maker, Centred):
            maker.centre(features[sessions.session_of == 0])
        support, classes = features[rows], labels[rows]
        if c.teen and session:
            support = calibrate(support, classes, sessions.known(0), c.teen, c.teen_scale)
        return maker.fitted(support, torch.searchsorted(known, classes), len(known)).eval()

    def _made(self, state: IncrementalState, accuracy: float) -> Made:
        c, data, beginning = self.config, self.base.whole, state.beginning
        return Made(
            backbone=beginning.backbone,
            adapters=tuple(beginning.adapters),
            head=self.classifier,
            classes=tuple(data.classes),
            in_shape=data.in_shape,
            data=reference(c.dataset, c.dataset_options, data, c.validation, self.sessions.reference()),
            test_accuracy=accuracy,
            precision=self.base.machine.precision,
        )

    def state_dict(self, state: IncrementalState) -> dict[str, Any]:
        training = None if state.training is None else self.base.state_dict(state.training)
        tables = {name: table.state_dict() for name, table in state.tables.items() if table.done}
        return {"training": training, "tables": tables}

    def load_state_dict(self, state: IncrementalState, saved: Mapping[str, Any]) -> None:
        if state.training is not None:
            self.base.load_state_dict(state.training, saved["training"])
        for name, rows in saved["tables"].items():
            state.tables[name].load_state_dict(rows)


@torch.no_grad()
def _answers(head: nn.Module, features: Tensor) -> Tensor:
    """features: [N, F] -> the largest output of each, [N] int64."""
    return torch.cat([head(part).argmax(1) for part in features.split(10_000)])


def _trained(state: IncrementalState) -> dict[str, float]:
    """What is reported of the training, where there was one."""
    if state.training is None:
        return {}
    seconds = state.training.trainer.progress.seconds
    return {"train/loss": state.training.curves[-1]["train/loss"], "train_seconds": seconds}


def _rows(found: list[Any]) -> list[Row]:
    return [{"caution": caution} for caution in found]
