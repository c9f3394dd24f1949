"""Experiment ``continual.stream``: learn one task after another, and measure what is left of each."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from backbone.contract import Result, Services
from backbone.data.load import load
from backbone.hardware import Precision, choose_precision, suit_threads, wait
from backbone.nets.classifier import Classifier, adapt, build
from backbone.optim import Optimizers
from backbone.registry import Registry
from backbone.training import UNIT_SECONDS, Recipe
from continual.catalogue import facts
from continual.configs import StreamConfig
from continual.connectivity import barrier, figure, path, snapshot
from continual.learner import Learner, optimizers_for
from continual.metrics import summary
from continual.outcome import outcome
from continual.prototypes import Prototypes
from continual.strategy import Setting, Strategy
from continual.streams import Stream
from continual.testing import Scores, test

NAN = math.nan


@dataclass
class Matrices:
    """Accuracies [tasks trained + 1][tasks]: row 0 is the untrained network, row i + 1 what is left after task i."""

    accuracy: list[list[float]] = field(default_factory=list)
    task_aware: list[list[float]] = field(default_factory=list)

    def add(self, scores: list[Scores | None]) -> None:
        for name in ("accuracy", "task_aware"):
            getattr(self, name).append([NAN if each is None else getattr(each, name) for each in scores])


@dataclass
class State:
    stream: Stream
    model: Classifier
    optimizers: Optimizers
    strategies: list[Strategy]
    learner: Learner
    matrices: Matrices = field(default_factory=Matrices)
    iterations: int = 0
    seconds: float = 0.0
    solutions: list[dict[str, Tensor]] = field(default_factory=list)
    """The network's state after every task, where they are wanted."""


class StreamExperiment:
    """Units of work are a few seconds of training; a task's last unit ends with tests on the tasks so far."""

    def __init__(self, config: StreamConfig, services: Services) -> None:
        self.config, self.services = config.resolved(), services
        self.precision: Precision = choose_precision(config.precision, services.device)

    def start(self) -> State:
        c, s = self.config, self.services
        data = load(c.dataset, c.dataset_options, root=s.data_root, download=s.download, validation=c.validation)
        s.provenance(data_sha256=data.fingerprint, dataset=data.name, precision=self.precision)
        suit_threads(c.batch_size * math.prod(data.in_shape) * (data.frames or 1))
        for caution in c.cautions():
            s.table("caution", [{"caution": caution}])
        stream = Stream(c, data, s.device)
        model = self._model(stream)
        state = self._beginning(stream, model)
        state.matrices.add([test(state.learner, stream.tests(j), j) for j in range(len(stream))])
        self._before(state)
        return state

    def _model(self, stream: Stream) -> Classifier:
        c = self.config
        zero, one = torch.zeros_like(stream.mean), torch.ones_like(stream.std)
        mean, std = (stream.mean, stream.std) if c.normalise else (zero, one)
        model = build(c.backbone, c.backbone_options, stream.in_shape, stream.width, mean, std)
        if c.adapter is not None:
            model.backbone = adapt(model.backbone, c.adapter, c.adapter_options)
        return model

    def _recipe(self) -> Recipe:
        c = self.config
        assert c.momentum is not None
        return Recipe(
            epochs=c.epochs or 1,
            batch_size=c.batch_size,
            optimizer=c.optimizer,
            lr=c.lr,
            momentum=c.momentum,
            weight_decay=c.weight_decay,
            schedule=c.schedule,
            warmup=0.0,
            label_smoothing=0.0,
            flip=c.flip,
            translate=c.translate,
            cutout=0,
            randaugment=0,
            ema=0.0,
            clip=c.clip,
            gradient_checkpointing=False,
            seed=c.seed,
        )

    def _beginning(self, stream: Stream, model: Classifier) -> State:
        """Everything as it is before the first step; the network sees images of the first task if it wants to."""
        s, recipe = self.services, self._recipe()
        first = Learner(model, stream.task(0).train, recipe, s.device, self.precision, (), task=0, head=stream.head)
        model, optimizers = first.progress.model, optimizers_for(first.progress.model, recipe)
        strategies = self._strategies(stream, model)
        state = State(stream, model, optimizers, strategies, first)
        state.learner = self._learner(state, 0)
        return state

    def _strategies(self, stream: Stream, model: Classifier) -> list[Strategy]:
        c, registry = self.config, Registry.discover()
        setting = Setting(
            seed=c.seed,
            device=self.services.device,
            precision=self.precision,
            tasks=len(stream),
            outputs=stream.width,
            in_shape=stream.in_shape,
            frames=stream.data.frames,
            batch_size=c.batch_size,
            groups=int(stream.head.shown.sum()),
            buffer=c.buffer,
        )
        found = []
        for name in sorted(c.strategies, key=lambda name: (facts(name).turn, name)):
            schema = registry.options("strategies", name)
            options = schema(**c.options_of(name)) if schema else None
            own = replace(setting, path=name.partition(":")[2])
            found.append(registry.load("strategies", name)(options, own, model))
        return [*found, Prototypes(None, setting, model)] if c.head == "prototype" else found

    def _learner(self, state: State, task: int) -> Learner:
        """A learner for one task, which goes on with everything there is."""
        c, stream = self.config, state.stream
        train, tasks = stream.task(task).train, None
        began = time.perf_counter()
        for strategy in state.strategies:
            if type(strategy).training_data is not Strategy.training_data:
                train, tasks = strategy.training_data(stream, stream.task(task))
        state.seconds += time.perf_counter() - began
        if c.reset_optimizer and task:
            state.optimizers = optimizers_for(state.model, self._recipe())
        course = next((each.course for each in state.strategies if each.course is not None), Learner)
        return course(
            state.model,
            train,
            self._recipe(),
            self.services.device,
            self.precision,
            state.strategies,
            task=task,
            head=stream.head,
            tasks=tasks,
            shuffle=stream.shuffle,
            all_rows=c.scenario in ("online", "task-free"),
            prepare=None,
            optimizers=state.optimizers,
            steps=c.iterations,
            passes=state.learner.passes,
        )

    def _before(self, state: State) -> None:
        learner = state.learner
        task = state.stream.task(learner.task)
        began = time.perf_counter()
        if task.told or learner.task == 0:
            for strategy in state.strategies:
                strategy.before_task(learner, task)
        if state.stream.head.kind == "multi":
            learner.enter(learner.task)
        wait(learner.device)
        state.seconds += time.perf_counter() - began

    def step(self, state: State, seconds: float = UNIT_SECONDS) -> bool:
        learner, stream = state.learner, state.stream
        if learner.done:
            state.learner = learner = self._learner(state, learner.task + 1)
            self._before(state)
        ended = learner.advance(seconds)
        if ended is not None:
            self.services.log(state.iterations + learner.progress.step, {"train/loss": ended["train/loss"]})
        if learner.done:
            self._after(state)
        share = learner.progress.step / learner.total_steps
        text = f"task {learner.task + 1} of {len(stream)}"
        self.services.progress(learner.task + share, len(stream), text)
        return not (learner.done and learner.task == len(stream) - 1)

    def _after(self, state: State) -> None:
        """A task is over: let the strategies take stock, then test."""
        learner, stream = state.learner, state.stream
        task = stream.task(learner.task)
        began = time.perf_counter()
        if task.told or learner.task == len(stream) - 1:
            for strategy in state.strategies:
                strategy.after_task(learner, task)
        wait(learner.device)
        if self.config.connectivity:
            state.solutions.append(snapshot(learner))
        state.iterations += learner.progress.step
        state.seconds += learner.progress.seconds + time.perf_counter() - began
        near = range(min(learner.task + 2, len(stream)))  # the next one for the forward transfer
        scores: list[Scores | None] = [test(learner, stream.tests(j), j) for j in near]
        state.matrices.add(scores + [None] * (len(stream) - len(scores)))
        row = state.matrices.accuracy[-1][: learner.task + 1]
        self.services.log(state.iterations, {"average_accuracy": math.fsum(row) / len(row)})

    def finish(self, state: State) -> Result:
        metrics = summary(state.matrices.accuracy[1:], state.matrices.accuracy[0])
        last = state.matrices.task_aware[-1]
        metrics |= {
            "task_aware_accuracy": math.fsum(last) / len(last),
            "seconds_per_iteration": state.seconds / state.iterations,
            "train_seconds": state.seconds,
            "parameters": float(sum(p.numel() for p in state.model.parameters())),
            "strategy_bytes": float(sum(strategy.bytes() for strategy in state.strategies)),
            "stored_samples": float(sum(strategy.samples() for strategy in state.strategies)),
        }
        if state.stream.data.validation is not None:
            held = [state.stream.part(j, "validation") for j in range(len(state.stream))]
            scores = [test(state.learner, split, j).accuracy for j, split in enumerate(held) if split is not None]
            metrics["validation/average_accuracy"] = math.fsum(scores) / len(scores)
        result = outcome(self.config, self.services, state, metrics)
        return self._connected(state, result) if self.config.connectivity and len(state.solutions) > 1 else result

    def _connected(self, state: State, result: Result) -> Result:
        """The result with what lies between the solutions of the tasks."""
        rows = path(state.learner, state.stream, state.solutions, self.config.connectivity)
        metrics = {**result.metrics, "connectivity_barrier": barrier(rows)}
        tables = {**result.tables, "connectivity": rows}
        return replace(result, metrics=metrics, tables=tables, figures={**result.figures, "connectivity": figure(rows)})

    def state_dict(self, state: State) -> dict[str, Any]:
        return {
            "task": state.learner.task,
            "learner": state.learner.state_dict(),
            "total_steps": state.learner.total_steps,
            "matrices": vars(state.matrices),
            "iterations": state.iterations,
            "seconds": state.seconds,
            "solutions": state.solutions,
        }

    def load_state_dict(self, state: State, saved: Mapping[str, Any]) -> None:
        state.strategies = self._strategies(state.stream, state.model)
        for strategy, kept in zip(state.strategies, saved["learner"]["strategies"], strict=True):
            strategy.load_state_dict(kept)  # what to train on may be theirs
        state.learner = self._learner(state, saved["task"])
        state.learner.total_steps = saved["total_steps"]  # once a task is over, what they keep is for the next one
        state.learner.load_state_dict(saved["learner"])
        if state.stream.head.kind == "multi":
            state.learner.enter(saved["task"])
        state.matrices = Matrices(**{name: [list(row) for row in rows] for name, rows in saved["matrices"].items()})
        state.iterations, state.seconds = saved["iterations"], saved["seconds"]
        state.solutions = list(saved["solutions"])
