"""``fewshot.enrol``: a user's own classes, a few pictures of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engram.backbone.contract import Centred, Result, Services
from engram.backbone.data.load import load_disjoint, load_either
from engram.backbone.data.sets import Data
from engram.backbone.data.trained import reference
from engram.backbone.nets.classifier import Classifier
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.backbone.saved.made import Made, from_json
from engram.backbone.saved.model import save_model
from engram.fewshot.enrolling.answers import Answers
from engram.fewshot.enrolling.configs import EnrolConfig
from engram.fewshot.enrolling.enrolment import enrolment, view_of
from engram.fewshot.enrolling.report import report
from engram.fewshot.episodes.features import Table
from engram.fewshot.frozen import Frozen, Learner, frozen

UNIT_SECONDS = 2.0


@dataclass
class EnrolState:
    """Where a trial is.

    Attributes:
        data: the pictures enrolled for training images, those asked about for test images.
        cautions: what to know before believing a score.
        network: as it is.
        learner: the support head.
        tables: features of both, and of the training images where the head wants to see them, filled in turn.
    """

    data: Data
    cautions: list[dict[str, str]]
    network: Frozen
    learner: Learner
    tables: dict[str, Table]


class Enrol:
    """Units of work are a few seconds of computing features; the rest is done with them at the end."""

    def __init__(self, config: EnrolConfig, services: Services) -> None:
        self.config, self.services = config, services

    def start(self) -> EnrolState:
        c, s = self.config, self.services
        load = load_disjoint if self._dealt_out() else load_either
        source = load(c.dataset, c.dataset_options, root=s.data_root, download=s.download, validation=0.0)
        data = enrolment(source, c.shots, c.seed)
        network = frozen(c, data.train, s.inputs, c.dataset)
        learner = network.support_head(c.head, c.head_options)
        training = network.to_centre(learner, root=s.data_root, download=s.download)
        if training is None:
            _try(learner.head, network)
        known = {} if network.made is None else {"model_sha256": network.made.sha256}
        s.provenance(data_sha256=data.fingerprint, **known, **data.facts)
        found = [{"caution": caution} for caution in (*data.cautions, *_learned(network.made, data))]
        if found:
            s.table("caution", found)
        network.model.to(s.device)
        learner.head.to(s.device)
        splits = {"training": training, "support": data.train, "queries": data.test}
        tables = {name: Table(split, s.device) for name, split in splits.items() if split is not None}
        return EnrolState(data, found, network, learner, tables)

    def _dealt_out(self) -> bool:
        """Whether the trial's network was trained on some classes of the same data set, the others held out."""
        c = self.config
        if "trained" not in self.services.inputs:
            return False
        ref = from_json((self.services.inputs["trained"] / "model" / "model.json").read_bytes()).data
        source = in_full(Registry.discover(), "datasets", c.dataset, c.dataset_options)
        return ref is not None and ref.disjoint and (ref.name, ref.options) == (source.name, source.options)

    def step(self, state: EnrolState) -> bool:
        table = next((table for table in state.tables.values() if not table.whole), None)
        if table is not None:
            table.fill(state.network.model, UNIT_SECONDS)
        done, total = (
            sum(count) for count in zip(*((t.done, len(t.split)) for t in state.tables.values()), strict=True)
        )
        self.services.progress(done, total, f"features of {done:,} of {total:,} pictures")
        return done < total

    def finish(self, state: EnrolState) -> Result:
        data, head = state.data, state.learner.head
        if "training" in state.tables and isinstance(head, Centred):
            head.centre(state.tables["training"].rows)
        answers = Answers(
            head,
            state.tables["support"].rows,
            data.train.labels.to(self.services.device),
            state.tables["queries"].rows,
            data.test.labels,
            len(data.classes),
            self.config.reject,
        )
        found = report(answers, data)
        self._save(state, answers, found.metrics["test/accuracy"])
        tables = {**found.tables, **({"cautions": state.cautions} if state.cautions else {})}
        artifacts = {"model": "model/model.safetensors", "manifest": "model/model.json"}
        return Result(metrics=found.metrics, tables=tables, figures=found.figures, artifacts=artifacts)

    def _save(self, state: EnrolState, answers: Answers, accuracy: float) -> None:
        """Keep the network with the classes enrolled as one that is made as any other."""
        c, data, network = self.config, state.data, state.network
        normalise = network.model.normalise
        model = Classifier(network.model.backbone, answers.fitted, normalise.mean, normalise.std)
        made = Made(
            backbone=network.backbone,
            adapters=network.adapters,
            head=state.learner.named,
            classes=data.classes,
            in_shape=data.in_shape,
            data=reference(c.dataset, c.dataset_options, data, 0.0, view_of(c.shots, c.seed)),
            test_accuracy=accuracy,
        )
        save_model(self.services.trial_dir / "model", model.eval(), made)

    def state_dict(self, state: EnrolState) -> dict[str, Any]:
        return {name: table.state_dict() for name, table in state.tables.items() if table.done}

    def load_state_dict(self, state: EnrolState, saved: Mapping[str, Any]) -> None:
        for name, rows in saved.items():
            state.tables[name].load_state_dict(rows)


def _try(head: nn.Module, network: Frozen) -> None:
    """Say now what a head lacks for making a classifier."""
    width: Any = network.model.backbone.feature_dim
    features = torch.randn(2, width, generator=torch.Generator().manual_seed(0))
    trial: Any = head
    trial.fitted(features, torch.tensor([0, 1]), 2)


def _learned(made: Made | None, data: Data) -> list[str]:
    """What there is to say of classes that are no new ones to the network."""
    if made is None or made.data is None or made.data.fingerprint != data.fingerprint:
        return []
    known = {name for names in (made.classes, *made.meanings) for name in names}
    if not (old := [name for name in data.classes if name in known]):
        return []
    named = ", ".join(old[:10]) + (", ..." if len(old) > 10 else "")
    return [f"The network was trained on pictures of {len(old)} of these classes ({named}): they are not new to it."]
