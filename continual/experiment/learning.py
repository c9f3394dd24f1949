"""A network on its way through the tasks of a stream: trained on each, tested after each, resumable anywhere."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from torch import Tensor

from engram.backbone.contract import Objective, ObjectiveSetting, Setting, Strategy
from engram.backbone.data.sets import Split
from engram.backbone.hardware import Machine, Precision, wait
from engram.backbone.nets.classifier import Classifier
from engram.backbone.objectives.making import objective_of
from engram.backbone.options import options_of
from engram.backbone.registry import Registry
from engram.backbone.seeding import derive
from engram.backbone.training.loop import UNIT_SECONDS
from engram.backbone.training.optim import Optimizers
from engram.backbone.training.preparing import prepare
from engram.continual.experiment.configs import StreamConfig
from engram.continual.experiment.connectivity import snapshot
from engram.continual.experiment.learner import Learner, Lesson, optimizers_for
from engram.continual.experiment.stream import Part, Stream
from engram.continual.experiment.testing import Scores, test
from engram.continual.prototypes import Prototypes
from engram.continual.replay.buffers import quota
from engram.continual.traits import in_turn

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
class StreamState:
    stream: Stream
    model: Classifier
    optimizers: Optimizers
    objective: Objective
    strategies: list[Strategy]
    learner: Learner
    matrices: Matrices = field(default_factory=Matrices)
    iterations: int = 0
    seconds: float = 0.0
    solutions: list[dict[str, Tensor]] = field(default_factory=list)
    """The network's state after every task, where they are wanted."""


class Audience(Protocol):
    """What measurements and progress are told to; `engram.backbone.contract.Services` is one."""

    @property
    def device(self) -> str: ...
    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...
    def progress(self, done: float, total: float, text: str = "") -> None: ...


class Within:
    """An `Audience` for a part of a trial: progress counts on from the part before; measurements may be kept back.

    Args:
        before: tasks learned before it.
        whole: tasks in all.
        about: what to say before how far it is.
    """

    def __init__(self, services: Audience, before: float, whole: float, about: str = "", *, logs: bool = True) -> None:
        self.services, self.before, self.whole, self.about, self.logs = services, before, whole, about, logs

    @property
    def device(self) -> str:
        return self.services.device

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self.logs:
            self.services.log(step, metrics)

    def progress(self, done: float, total: float, text: str = "") -> None:
        self.services.progress(self.before + done, self.whole, self.about + text)


class Learning:
    """Units of work are a few seconds of training; a task's last unit ends with tests on the tasks so far.

    Args:
        config: resolved, the strength of every penalty a number.
        tasks: how many to learn; None: all of the stream.
        part: the images to test on.
    """

    def __init__(
        self,
        config: StreamConfig,
        services: Audience,
        precision: Precision,
        *,
        tasks: int | None = None,
        part: Literal["validation", "test"] = "test",
    ) -> None:
        self.config, self.services = config, services
        self.machine = Machine(services.device, precision)
        self.tasks = config.tasks if tasks is None else tasks
        self.part: Part = part

    def start(
        self, stream: Stream, model: Classifier, method: Literal["prepare", "calibrate"] | None = "prepare"
    ) -> StreamState:
        """A network that has no strategies yet; by that method, if any, it looks at images of the first task."""
        train, options = stream.task(0).train, self.config
        if method is not None:
            prepare(model, train, derive(options.seed, "task", 0), method)
        objective = self._objective(train, stream.width)
        first = Learner(model, Lesson(train, 0, stream.head), options, self.machine, objective)
        return StreamState(stream, first.model, optimizers_for(first.model, options, stream.head), objective, [], first)

    def _objective(self, train: Split, outputs: int) -> Objective:
        """Of the whole stream; replayed rows have labels alone."""
        setting = ObjectiveSetting(
            data=train, outputs=outputs, label_smoothing=self.config.label_smoothing, device=self.machine.device
        )
        return objective_of(self.config, setting)

    def begin(self, state: StreamState) -> None:
        """Everything as it is before the first step; the untrained network is tested."""
        state.strategies = self._strategies(state.stream, state.model)
        state.learner = self._learner(state, 0)
        state.matrices.add([self._test(state, j) for j in range(self.tasks)])
        self._before(state)

    def _test(self, state: StreamState, task: int) -> Scores:
        split = state.stream.part(task, self.part)
        assert split is not None
        return test(state.learner, split, task)

    def _strategies(self, stream: Stream, model: Classifier) -> list[Strategy]:
        c, registry = self.config, Registry.discover()
        setting = Setting(
            seed=c.seed,
            device=self.services.device,
            precision=self.machine.precision,
            tasks=len(stream),
            outputs=stream.width,
            in_shape=stream.in_shape,
            frames=stream.data.frames,
            batch_size=c.batch_size,
            groups=int(stream.head.shown.sum()),
            buffer=c.buffer,
        )
        found, keeping = [], [name for name in in_turn(c.strategies) if c.traits(name).buffer]
        for name in in_turn(c.strategies):
            options = options_of(registry, "strategies", name, c.options_of(name))
            own = replace(setting, path=name.partition(":")[2])
            if name in keeping:
                own = replace(own, buffer=quota(c.buffer, len(keeping), keeping.index(name)), keepers=len(keeping))
            found.append(registry.load("strategies", name)(options, own, model))
        return [*found, Prototypes(None, setting, model)] if c.head == "prototype" else found

    def _learner(self, state: StreamState, task: int) -> Learner:
        """A learner for one task, which goes on with everything there is."""
        c, stream = self.config, state.stream
        lesson = Lesson(stream.task(task).train, task, stream.head, shuffled=stream.shuffle)
        began = time.perf_counter()
        for strategy in state.strategies:
            if (chosen := strategy.training_data(stream, stream.task(task))) is not None:
                lesson = replace(lesson, data=chosen[0], tasks=chosen[1])
        state.seconds += time.perf_counter() - began
        if c.reset_optimizer and task:
            state.optimizers = optimizers_for(state.model, self.config, stream.head)
        return Learner(
            state.model,
            lesson,
            self.config,
            self.machine,
            state.objective,
            state.strategies,
            steps=c.iterations,
            optimizers=state.optimizers,
            passes=state.learner.trainer.passes,
            average=state.learner.trainer.progress.average,
        )

    def _before(self, state: StreamState) -> None:
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

    def step(self, state: StreamState, seconds: float = UNIT_SECONDS) -> bool:
        """Do a unit of work; False once there is no more."""
        learner = state.learner
        if learner.done:
            state.learner = learner = self._learner(state, learner.task + 1)
            self._before(state)
        ended = learner.advance(seconds)
        if ended is not None:
            self.services.log(state.iterations + learner.step, {"train/loss": ended["train/loss"]})
        if learner.done:
            self._after(state)
        share = learner.step / learner.total_steps
        text = f"task {learner.task + 1} of {self.tasks}"
        self.services.progress(learner.task + share, self.tasks, text)
        last = learner.task == self.tasks - 1
        if learner.done and not last and self.part == "test":  # else `finish` tells, or what is tested is this
            self.tell_held_out(state)
        return not (learner.done and last)

    def _after(self, state: StreamState) -> None:
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
        state.iterations += learner.step
        state.seconds += learner.trainer.progress.seconds + time.perf_counter() - began
        near = range(min(learner.task + 2, self.tasks))  # the next one for the forward transfer
        scores: list[Scores | None] = [self._test(state, j) for j in near]
        state.matrices.add(scores + [None] * (self.tasks - len(scores)))
        row = state.matrices.accuracy[-1][: learner.task + 1]
        self.services.log(state.iterations, {"test/average_accuracy": math.fsum(row) / len(row)})

    def tell_held_out(self, state: StreamState) -> float | None:
        """Log the mean accuracy on the validation images of the tasks so far, and return it; None where there are none.

        Its step is how many tasks were learned, as progress counts them.
        """
        stream, learner = state.stream, state.learner
        held = [stream.part(task, "validation") for task in range(learner.task + 1)]
        scores = [test(learner, split, task).accuracy for task, split in enumerate(held) if split is not None]
        if not scores:
            return None
        before = self.services.before if isinstance(self.services, Within) else 0
        found = math.fsum(scores) / len(scores)
        self.services.log(int(before) + learner.task + 1, {"validation/average_accuracy": found})
        return found

    def state_dict(self, state: StreamState) -> dict[str, Any]:
        return {
            "task": state.learner.task,
            "learner": state.learner.trainer.state_dict(),
            "total_steps": state.learner.total_steps,
            "matrices": vars(state.matrices),
            "iterations": state.iterations,
            "seconds": state.seconds,
            "solutions": state.solutions,
        }

    def load_state_dict(self, state: StreamState, saved: Mapping[str, Any]) -> None:
        state.strategies = self._strategies(state.stream, state.model)
        kept, (hook,) = saved["learner"], saved["learner"]["hooks"]
        for strategy, own in zip(state.strategies, hook["strategies"], strict=True):
            strategy.load_state_dict(own)  # what to train on may be theirs
        state.learner = self._learner(state, saved["task"])
        state.learner.trainer.total_steps = saved[
            "total_steps"
        ]  # once a task is over, what they keep is for the next one
        state.learner.trainer.load_state_dict(kept)
        if state.stream.head.kind == "multi":
            state.learner.enter(saved["task"])
        state.matrices = Matrices(**{name: [list(row) for row in rows] for name, rows in saved["matrices"].items()})
        state.iterations, state.seconds = saved["iterations"], saved["seconds"]
        state.solutions = list(saved["solutions"])
