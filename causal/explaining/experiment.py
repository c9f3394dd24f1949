"""Experiment ``causal.explain``: which pixels, features and concepts a trained network answers by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import Result, Row, Services
from engram.backbone.data.columns import FOREGROUND
from engram.backbone.data.load import load
from engram.backbone.data.sets import Data, Split
from engram.backbone.data.trained import cautions, load_as_trained, of_such_images, outputs_of, require_shape
from engram.backbone.errors import must
from engram.backbone.nets.layout import arranged
from engram.backbone.saved.made import Made
from engram.backbone.saved.model import load_model
from engram.backbone.seeding import generator
from engram.causal.explaining import trusting
from engram.causal.explaining.asking import Asked
from engram.causal.explaining.attributions import attribution, completeness, stage_gradients
from engram.causal.explaining.configs import RANDOM, ExplainConfig, Method
from engram.causal.explaining.explained import LOTS, OTHERS, Explained
from engram.causal.explaining.features import excitement
from engram.causal.explaining.report import report
from engram.causal.explaining.tcav import Examples

TOGETHER = 16
"""Pictures explained at a time."""


@dataclass
class ExplainState:
    """Where a trial is. ``labels`` are the network's outputs for the pictures; of ``units`` the first are ``done``."""

    asked: Asked
    classes: tuple[str, ...]
    split: Split
    train: Split
    labels: Tensor
    examples: Examples | None
    cautions: list[Row]
    found: Explained
    units: list[Callable[[], None]] = field(default_factory=list)
    done: int = 0


class Explain:
    """Units of work are a batch of pictures by one method, or the images of one concept."""

    def __init__(self, config: ExplainConfig, services: Services) -> None:
        self.config, self.services = config, services

    def start(self) -> ExplainState:
        c, s = self.config, self.services
        model, made = load_model(s.inputs["trained"] / "model")
        data, outputs = self._data(made)
        if data.frames is not None:
            raise must("the data of causal.explain", "pictures", "recordings of events", "Name others: --dataset.")
        found = cautions(made, data)
        if found:
            s.table("caution", found)
        s.provenance(data_sha256=data.fingerprint, model_sha256=made.sha256, **data.facts)
        asked = Asked(model.to(s.device).eval(), c.stage)
        order = torch.randperm(len(data.test), generator=generator(c.seed, "explained"))[: c.images]
        split = data.test.select(order)
        examples = None if c.concept is None else Examples.of(data.train, c.concept, c.seed)
        labels = outputs[split.labels].to(s.device)
        state = ExplainState(asked, made.classes, split, data.train, labels, examples, found, Explained())
        state.units = self._units(state)
        return state

    def _data(self, made: Made) -> tuple[Data, Tensor]:
        """The pictures, and the network's output for each of their classes."""
        c, s = self.config, self.services
        if c.dataset is None:
            return load_as_trained(made, root=s.data_root, download=s.download)
        held = 0.0 if made.data is None else made.data.validation
        data = load(c.dataset, c.dataset_options, root=s.data_root, download=s.download, validation=held)
        require_shape(made, "the images", data.in_shape, of_such_images(made, c.dataset))
        return data, outputs_of(made, data.classes)

    def _units(self, state: ExplainState) -> list[Callable[[], None]]:
        parts = torch.arange(len(state.split)).split(TOGETHER)
        units: list[Callable[[], None]] = []
        for number, places in enumerate(parts):
            units.append(partial(self._answer, state, number, places))
            units += [partial(self._explain, state, method, number, places) for method in self.config.methods]
        if state.examples is not None:
            named = {**state.examples.concepts, OTHERS: state.examples.others, LOTS: state.examples.lots}
            units += [partial(self._show, state, name, places) for name, places in named.items()]
        return units

    def _answer(self, state: ExplainState, number: int, places: Tensor) -> None:
        """What the network answers, and the curves of pixels in an order by lot."""
        x, found = self._images(state, places), state.found
        with torch.no_grad():
            answers = state.asked.logits(x).argmax(1)
        found.answers = torch.cat([found.answers, answers.cpu()])
        _, grads = stage_gradients(state.asked, x, answers)
        found.gradients = torch.cat([found.gradients, grads.sum(0).mean((-2, -1)).double().cpu()])
        found.excited = torch.cat([found.excited, excitement(state.asked, x).double().cpu()])
        by_lot = torch.rand(len(x), *x.shape[-2:], generator=generator(self.config.seed, "random order", number))
        self._measured(state, RANDOM, x, answers, by_lot.to(x), places)

    def _explain(self, state: ExplainState, method: Method, number: int, places: Tensor) -> None:
        c, asked = self.config, state.asked
        x, answers = self._images(state, places), state.found.answers[places].to(state.labels.device)
        explained = attribution(asked, c, method)
        each = explained(x, answers)
        measures = {
            "infidelity": trusting.infidelity(asked, x, answers, each, c.seed, number),
            "sensitivity": trusting.sensitivity(explained, x, answers, c.seed, number),
        }
        if method == "integrated-gradients":
            measures["incompleteness"] = completeness(asked, x, answers, each, c.baseline)
        self._measured(state, method, x, answers, each.sum(1), places, measures)

    def _measured(
        self,
        state: ExplainState,
        name: str,
        x: Tensor,
        answers: Tensor,
        maps: Tensor,
        places: Tensor,
        measures: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Keep what one method says of some pictures, with its curves."""
        asked, found = state.asked, state.found
        baseline = asked.baseline(x, self.config.baseline)
        curves = {
            kind: trusting.curve(asked, x, baseline, answers, maps, insert=kind == "insertion")
            for kind in ("insertion", "deletion")
        }
        measures = {**(measures or {}), **{kind: trusting.area(each) for kind, each in curves.items()}}
        masks = state.split.columns.get(FOREGROUND)
        if isinstance(masks, Tensor):
            measures["on_foreground"] = trusting.on_foreground(maps.cpu(), masks[places].bool())
        found.maps[name] = _with(found.maps.get(name), maps.float())
        for kind, each in curves.items():
            kept = found.curves.setdefault(name, {})
            kept[kind] = _with(kept.get(kind), each.double())
        for kind, each in measures.items():
            kept = found.measures.setdefault(name, {})
            kept[kind] = _with(kept.get(kind), each.double())

    def _show(self, state: ExplainState, name: str, places: Tensor) -> None:
        """The stage's output for the images of a concept, its mean over places and steps."""
        found = []
        for part in places.split(TOGETHER):
            images, _, _ = next(iter(state.train.batches(part, len(part), self.services.device)))
            with torch.no_grad():
                _, values = state.asked.at_stage(self._normalised(state, images))
            found.append(torch.cat(values).mean((0, -2, -1)).double().cpu())
        state.found.values[name] = torch.cat(found)

    def _images(self, state: ExplainState, places: Tensor) -> Tensor:
        ((images, _, _),) = state.split.batches(places, len(places), self.services.device)
        return self._normalised(state, images)

    def _normalised(self, state: ExplainState, images: Tensor) -> Tensor:
        model = state.asked.model
        return model.normalise(arranged(images, model.backbone))

    def step(self, state: ExplainState) -> bool:
        state.units[state.done]()
        state.done += 1
        self.services.progress(state.done, len(state.units), "pictures and concepts")
        return state.done < len(state.units)

    def finish(self, state: ExplainState) -> Result:
        pictures = self._images(state, torch.arange(len(state.split)))
        labels, classes = state.labels.cpu(), state.classes
        return report(state.found, self.config, state.asked, pictures, labels, classes, state.split, state.cautions)

    def state_dict(self, state: ExplainState) -> dict[str, Any]:
        return {"done": state.done, "found": dict(vars(state.found))}

    def load_state_dict(self, state: ExplainState, saved: Mapping[str, Any]) -> None:
        state.done = int(saved["done"])
        for name, value in saved["found"].items():
            setattr(state.found, name, value)


def _with(so_far: Tensor | None, more: Tensor) -> Tensor:
    more = more.cpu()
    return more if so_far is None else torch.cat([so_far, more])
