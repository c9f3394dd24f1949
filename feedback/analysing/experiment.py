"""Experiment ``feedback.analyse``: what goes on inside a trained network, over steps, and what its feedback is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import Result, Row, Services
from engram.backbone.data.corruptions.applying import require
from engram.backbone.data.corruptions.split import corrupted
from engram.backbone.data.sets import Split
from engram.backbone.data.trained import cautions, load_to_look_at
from engram.backbone.errors import must
from engram.backbone.measures.spans import spans
from engram.backbone.saved.model import load_model
from engram.backbone.seeding import generator
from engram.feedback.analysing.alignment import LEAST
from engram.feedback.analysing.configs import AnalyseConfig
from engram.feedback.analysing.decoders import Decoders
from engram.feedback.analysing.looking import Inside
from engram.feedback.analysing.measuring import CLEAN, Measured
from engram.feedback.analysing.report import report

VALUES = 2**25
"""Numbers that all stages give in all steps for the pictures looked at at once, which are at most"""
TOGETHER = 128


@dataclass
class AnalyseState:
    """Where a trial is.

    Attributes:
        test: the pictures looked at, by condition.
        train: those that decoders are fitted to.
        labels: [N] int64, the network's outputs for the test pictures.
        units: the work, of which ``done`` are done.
    """

    inside: Inside
    classes: tuple[str, ...]
    cautions: list[Row]
    test: Mapping[str, Split]
    train: Split
    labels: Tensor
    measured: Measured
    decoders: Decoders
    units: list[Callable[[], None]]
    done: int = 0


class Analyse:
    """Units of work are a batch of pictures each: watched, seen with connections off, or what is hidden decoded."""

    def __init__(self, config: AnalyseConfig, services: Services) -> None:
        self.config, self.services = config, services

    def start(self) -> AnalyseState:
        c, s = self.config, self.services
        model, made = load_model(s.inputs["trained"] / "model")
        data, outputs = load_to_look_at(made, c.dataset, c.dataset_options, root=s.data_root, download=s.download)
        if data.frames is not None:
            raise must("the data of feedback.analyse", "pictures", "recordings of events", "Name others: --dataset.")
        require(c.corruptions[0], c.severity, data.in_shape[0])
        found = cautions(made, data)
        if found:
            s.table("caution", found)
        s.provenance(data_sha256=data.fingerprint, model_sha256=made.sha256, **data.facts)
        inside = Inside(model.to(s.device).eval())
        train, clean = self._chosen(data.train, c.training_images), self._chosen(data.test, c.images)
        test = {CLEAN: clean, **{kind: corrupted(clean, kind, c.severity) for kind in c.corruptions}}
        measured = Measured(inside, c.corruptions, len(clean))
        decoders, labels = Decoders(inside, len(clean), c.seed), outputs[clean.labels].to(s.device)
        state = AnalyseState(inside, made.classes, found, test, train, labels, measured, decoders, [])
        return replace(state, units=self._units(state))

    def _chosen(self, split: Split, count: int) -> Split:
        """Pictures drawn by the seed, and in the order drawn.

        Neighbours exchange what connections carry, and the last quarter chooses the penalty of decoders: in a set that
        is sorted by class neither may be of one class.
        """
        order = torch.randperm(len(split), generator=generator(self.config.seed, "analysed"))
        return split.select(order[:count])

    def _units(self, state: AnalyseState) -> list[Callable[[], None]]:
        units: list[Callable[[], None]] = []
        at_once = max(min(TOGETHER, VALUES // max(state.inside.values, 1)), 2 * LEAST)
        count, training = len(state.labels), len(state.train)
        places, learned = spans(count, at_once), spans(training, at_once)
        for at in places:
            units.append(partial(self._watch, state, at))
            units += [partial(self._ablate, state, number, at) for number in range(len(state.measured.variants))]
        units += [partial(self._learn, state, at) for at in learned]
        units += [partial(self._test, state, at) for at in places]
        return units

    def _watch(self, state: AnalyseState, at: slice) -> None:
        state.measured.watch(self._shown(state, at), state.labels[at], at)

    def _ablate(self, state: AnalyseState, variant: int, at: slice) -> None:
        state.measured.ablate(variant, self._shown(state, at), state.labels[at], at)

    def _learn(self, state: AnalyseState, at: slice) -> None:
        state.decoders.learn(_images(state.train, at, self.services.device))

    def _test(self, state: AnalyseState, at: slice) -> None:
        state.decoders.test(_images(state.test[CLEAN], at, self.services.device), at)

    def _shown(self, state: AnalyseState, at: slice) -> dict[str, Tensor]:
        return {name: _images(split, at, self.services.device) for name, split in state.test.items()}

    def step(self, state: AnalyseState) -> bool:
        state.units[state.done]()
        state.done += 1
        self.services.progress(state.done, len(state.units), f"{state.inside.steps} steps of every picture")
        return state.done < len(state.units)

    def finish(self, state: AnalyseState) -> Result:
        return report(state.measured, state.decoders, state.test, state.classes, state.labels, state.cautions)

    def state_dict(self, state: AnalyseState) -> dict[str, Any]:
        return {
            "done": state.done,
            "measured": state.measured.state_dict(),
            "decoders": state.decoders.state_dict(),
        }

    def load_state_dict(self, state: AnalyseState, saved: Mapping[str, Any]) -> None:
        state.done = int(saved["done"])
        state.measured.load_state_dict(saved["measured"])
        state.decoders.load_state_dict(saved["decoders"])


def _images(split: Split, at: slice, device: str) -> Tensor:
    """The pictures at some places, [B, C, H, W] uint8."""
    rows = torch.arange(at.start, at.stop)
    ((images, _, _),) = split.batches(rows, len(rows), device)
    return images
