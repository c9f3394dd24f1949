"""``backbone.evaluate``: score a trained network on any data, with the preprocessing it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import Result, Row, Services
from engram.backbone.data.load import load_for_scoring
from engram.backbone.data.sets import ALL, Split
from engram.backbone.data.trained import (
    cautions,
    load_as_trained,
    of_such_images,
    outputs_of,
    require_shape,
    require_trained_on,
    used_of,
)
from engram.backbone.errors import must
from engram.backbone.experiments.beginning import as_it_came
from engram.backbone.experiments.configs import EvaluateConfig
from engram.backbone.measures.answers import Answers, answers, steps_taken
from engram.backbone.measures.confusions import Confusions
from engram.backbone.measures.scoring import score
from engram.backbone.nets.classifier import Classifier
from engram.backbone.saved.made import Made
from engram.backbone.saved.model import load_model


class Evaluate:
    """One unit of work: load and score."""

    def __init__(self, config: EvaluateConfig, services: Services) -> None:
        self.config, self.services = config, services

    def start(self) -> dict[str, Any]:
        return {}

    def step(self, state: dict[str, Any]) -> bool:
        c, s = self.config, self.services
        if "trained" not in s.inputs:
            self._untrained(state)
            return False
        model, made = load_model(s.inputs["trained"] / "model")
        ref = made.trained_on()
        if c.dataset is None and ref.view is not None:
            split, targets, fingerprint = self._as_seen(made)
        else:
            split, classes, fingerprint = load_for_scoring(
                ref.name if c.dataset is None else c.dataset,
                ref.options if c.dataset is None else c.dataset_options,
                root=s.data_root,
                download=s.download,
                split=c.split,
                validation=ref.validation,
                used=used_of(ref) if c.dataset is None else ALL,
                trained_on=(ref.fingerprint, ref.pictures),
            )
            if c.dataset is None:
                require_trained_on(ref, fingerprint)
            require_shape(made, "the images", split.in_shape, of_such_images(made, c.dataset or ref.name))
            targets = outputs_of(made, classes)
        s.provenance(data_sha256=fingerprint, **({"dataset": ref.name} if c.dataset is None else {}))
        state["cautions"] = cautions(made)
        if state["cautions"]:
            s.table("caution", state["cautions"])
        self._score(state, model, split, made.classes, targets)
        if state["answers"] is not None and c.dataset is None and c.split == "test":
            state["held"] = self._held(model, made)
        return False

    def _held(self, model: Classifier, made: Made) -> Answers | None:
        """What a network with steps answers to the validation images it was trained beside: where to stop is chosen
        by them.
        """
        data, targets = load_as_trained(made, root=self.services.data_root, download=self.services.download)
        return None if data.validation is None else answers(model, data.validation, self.services.device, targets)

    def _untrained(self, state: dict[str, Any]) -> None:
        """Score a network as it came, in a file with its weights, whose outputs are the classes of the data."""
        c, s = self.config, self.services
        assert c.backbone is not None and c.dataset is not None  # the configuration was checked
        split, classes, fingerprint = load_for_scoring(
            c.dataset, c.dataset_options, root=s.data_root, download=s.download, split=c.split
        )
        s.provenance(data_sha256=fingerprint)
        model = as_it_came(c.backbone, c.backbone_options, split, classes)
        state["cautions"] = []
        self._score(state, model, split, classes, torch.arange(len(classes)))

    def _score(
        self, state: dict[str, Any], model: Classifier, split: Split, classes: tuple[str, ...], targets: Tensor
    ) -> None:
        device = self.services.device
        state["confusions"] = confusions = Confusions(classes)
        state["scores"] = score(model.to(device), split, device, targets=targets, confusions=confusions)
        several = steps_taken(model, split) > 1
        state["answers"] = answers(model.eval(), split, device, targets) if several else None
        state["held"] = None

    def _as_seen(self, made: Made) -> tuple[Split, Tensor, str]:
        """The images of a network that saw its data in a way of its own, its outputs for their classes, fingerprint."""
        s, name = self.services, self.config.split
        data, targets = load_as_trained(made, root=s.data_root, download=s.download)
        parts = {"train": data.train, "validation": data.validation, "test": data.test}
        wanted = [part for part in (parts.values() if name == "all" else [parts[name]]) if part is not None]
        if not wanted:
            raise must(f"the {name} split of {data.name!r}", "at least one image", "none", "Choose another --split.")
        return reduce(lambda some, more: some.and_also(more), wanted), targets, data.fingerprint

    def finish(self, state: dict[str, Any]) -> Result:
        scores, found = state["scores"], state["cautions"]
        answered, held = state["answers"], state["held"]
        metrics = {f"{self.config.split}/{name}": scores[name] for name in ("accuracy", "loss")}
        metrics["images"] = scores["images"]
        figures = state["confusions"].figures(self.config.split)
        tables: dict[str, list[Row]] = {"cautions": found} if found else {}
        if answered is not None:
            metrics |= answered.metrics(held)
            tables = {**answered.tables(held), **tables}
            figures = {**answered.figures(f"{self.config.split} accuracy"), **figures}
        return Result(metrics=metrics, tables=tables, figures=figures)

    def state_dict(self, state: dict[str, Any]) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any], saved: Mapping[str, Any]) -> None:
        pass
