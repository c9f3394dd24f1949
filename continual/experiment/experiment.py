"""Experiment ``continual.stream``: learn one task after another, and measure what is left of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from engram.backbone.contract import Result, Services
from engram.backbone.data.load import load
from engram.backbone.experiments.beginning import Beginning, begin, show_verdicts
from engram.backbone.hardware import Precision, choose_precision, suit_threads
from engram.backbone.training.loop import UNIT_SECONDS
from engram.continual.experiment.choice import Choice
from engram.continual.experiment.configs import StreamConfig
from engram.continual.experiment.connectivity import barrier, figure, path
from engram.continual.experiment.learning import Learning, StreamState, Within
from engram.continual.experiment.metrics import summary
from engram.continual.experiment.report import outcome
from engram.continual.experiment.stream import Stream
from engram.continual.traits import said

CHOICE = "choice of strength"


class StreamExperiment:
    """First strengths that are auto are chosen, then the stream is learned; units of work are those of `Learning`."""

    def __init__(self, config: StreamConfig, services: Services) -> None:
        self.config, self.services = config, services
        self.precision: Precision = choose_precision(config.precision, services.device)
        self.learning = Learning(self.config, services, self.precision)
        self.choice: Choice | None = None

    def start(self) -> StreamState:
        c, s = self.config, self.services
        data = load(c.dataset, c.dataset_options, root=s.data_root, download=s.download, validation=c.validation)
        s.provenance(data_sha256=data.fingerprint, precision=self.precision, **data.facts)
        suit_threads(c.batch_size * math.prod(data.in_shape) * (data.frames or 1))
        for caution in (*c.cautions(), *data.cautions):
            s.table("caution", [{"caution": caution}])
        stream = Stream(c, data, s.device)
        self.beginning = self._beginning(stream)
        show_verdicts(self.beginning.model.backbone, s)
        state = self.learning.start(stream, self.beginning.model, self.beginning.prepare)
        if c.to_choose():
            self.choice = Choice(c, s, self.precision, data, state.model)
        if self.choice is None or self.choice.done:
            self._begin(state)
        return state

    def _begin(self, state: StreamState) -> None:
        """The strengths are known: what remains is the stream."""
        self._take_strengths()
        self.learning.begin(state)

    def _take_strengths(self) -> None:
        if self.choice is None:
            return
        config = self.config.with_strengths(self.choice.strengths)
        learned = self.choice.learned
        audience = Within(self.services, learned, learned + config.tasks)
        self.learning = Learning(config, audience, self.precision)

    def _beginning(self, stream: Stream) -> Beginning:
        """The network before the first task."""
        zero, one = torch.zeros_like(stream.mean), torch.ones_like(stream.std)
        mean, std = (stream.mean, stream.std) if self.config.normalise else (zero, one)
        seen = replace(stream.data, classes=stream.names, in_shape=stream.in_shape, mean=mean, std=std)
        return begin(self.config, seen, self.services.inputs, relabel=False)

    def step(self, state: StreamState, seconds: float = UNIT_SECONDS) -> bool:
        choice = self.choice
        if choice is None or choice.done:
            return self.learning.step(state, seconds)
        choice.step(seconds)
        if choice.done:
            self.services.table(CHOICE, choice.table())
            self._begin(state)
        return True

    def finish(self, state: StreamState) -> Result:
        found = summary(state.matrices.accuracy[1:], state.matrices.accuracy[0])
        last = state.matrices.task_aware[-1]
        metrics = {
            **{f"test/{name}": value for name, value in found.items()},
            "test/task_aware_accuracy": math.fsum(last) / len(last),
            "seconds_per_iteration": state.seconds / state.iterations,
            "train_seconds": state.seconds,
            "parameters": float(sum(p.numel() for p in state.model.parameters())),
            "strategy_bytes": float(sum(strategy.bytes() for strategy in state.strategies)),
            "stored_samples": float(sum(strategy.samples() for strategy in state.strategies)),
        }
        if (held_out := self.learning.tell_held_out(state)) is not None:
            metrics["validation/average_accuracy"] = held_out
        result = outcome(self.learning.config, self.services, state, self.beginning, metrics)
        result = result if self.choice is None else self._chosen(self.choice, result)
        return self._connected(state, result) if self.config.connectivity and len(state.solutions) > 1 else result

    def _chosen(self, choice: Choice, result: Result) -> Result:
        """The result with which strengths were chosen, and by what."""
        found = {f"strength/{said(name)}": strength for name, strength in choice.strengths.items()}
        cautions = [{"caution": caution} for caution in choice.cautions()]
        tables = {**result.tables, "cautions": [*result.tables.get("cautions", ()), *cautions], CHOICE: choice.table()}
        return replace(result, metrics={**result.metrics, **found, "choosing_seconds": choice.seconds}, tables=tables)

    def _connected(self, state: StreamState, result: Result) -> Result:
        """The result with what lies between the solutions of the tasks."""
        rows = path(state.learner, state.stream, state.solutions, self.config.connectivity)
        metrics = {**result.metrics, "test/connectivity_barrier": barrier(rows)}
        tables = {**result.tables, "connectivity": rows}
        return replace(result, metrics=metrics, tables=tables, figures={**result.figures, "connectivity": figure(rows)})

    def state_dict(self, state: StreamState) -> dict[str, Any]:
        choice = None if self.choice is None else self.choice.state_dict()
        return {"choice": choice, "stream": self.learning.state_dict(state)}

    def load_state_dict(self, state: StreamState, saved: Mapping[str, Any]) -> None:
        if self.choice is not None:
            state.model.load_state_dict(saved["stream"]["learner"]["model"])  # candidates begin with its weights
            self.choice.load_state_dict(saved["choice"])
            if not self.choice.done:
                return
            self._take_strengths()
        self.learning.load_state_dict(state, saved["stream"])
