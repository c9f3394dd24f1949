"""The one training loop on one task of a stream: strategies around it, heads with masks, rows of other tasks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import Batch, Hook, Learned, Objective, Reach, Strategy, Training
from engram.backbone.data.sets import Split
from engram.backbone.hardware import Machine, Precision
from engram.backbone.nets.classifier import Classifier
from engram.backbone.objectives.asking import without_rows
from engram.backbone.objectives.cross_entropy import cross_entropies
from engram.backbone.seeding import derive
from engram.backbone.training.loop import UNIT_SECONDS, Trainer
from engram.backbone.training.optim import Optimizers
from engram.backbone.training.options import TrainingOptions
from engram.backbone.training.samplers import Uniform
from engram.continual.tasks.heads import HeadMasks
from engram.continual.tasks.masking import TASK, Masked


@dataclass(frozen=True)
class Lesson:
    """What a learner is to learn.

    Attributes:
        data: the images of the task, labels as the head numbers them.
        task: the number of the task.
        head: which outputs count for which task.
        tasks: [N] int64, of which task every image of ``data`` is; None: all of them of this one.
        shuffled: False keeps the order of the images, for streams whose order matters.
    """

    data: Split
    task: int
    head: HeadMasks
    tasks: Tensor | None = None
    shuffled: bool = True


class Learner(Hook):
    """Trains on one task; the next task gets a learner of its own, with the same model, optimizers and strategies.

    It is a hook of its trainer, which passes all calls on to the strategies (`engram.backbone.contract.Learner` is what
    they see of it).

    Args:
        model: on its device from the first task on.
        options: of the whole stream; randomness is derived from its seed and the task.
        objective: of the whole stream; the head's masks are put around it.
        more: of `Trainer`.

    Raises:
        UserError: a strategy needs the loss of every row, and the objective cannot tell it.
    """

    def __init__(
        self,
        model: Classifier,
        lesson: Lesson,
        options: TrainingOptions,
        machine: Machine,
        objective: Objective,
        strategies: Sequence[Strategy] = (),
        **more: Any,
    ) -> None:
        self.task, self.head, self.tasks, self.strategies = lesson.task, lesson.head, lesson.tasks, strategies
        weighing = [type(strategy).__name__ for strategy in strategies if strategy.by_rows]
        self.by_rows = bool(weighing)
        if weighing and not objective.by_rows:  # one of the two has not declared it
            raise without_rows(weighing[0], type(objective).__name__)
        self.limit: int | None = more.get("steps")
        self.offered = Masked(objective, lesson.head, lesson.task)
        seeded = replace(options, seed=derive(options.seed, "task", lesson.task))
        sampler = Uniform(lesson.shuffled)
        self.trainer = Trainer(model, lesson.data, seeded, machine, self.offered, sampler, (self,), **more)
        own: Reach = "own" if lesson.tasks is None else "met"
        reaches: set[Reach] = {own, *(strategy.reach for strategy in strategies)}
        self.optimizers.train(lesson.head.trained(lesson.task, reaches))
        for strategy in strategies:
            strategy.attach(self)

    @property
    def model(self) -> Classifier:
        return self.trainer.model

    @property
    def data(self) -> Split:
        return self.trainer.data

    @property
    def options(self) -> TrainingOptions:
        return self.trainer.options

    @property
    def optimizers(self) -> Optimizers:
        return self.trainer.optimizers

    @property
    def device(self) -> str:
        return self.trainer.device

    @property
    def precision(self) -> Precision:
        return self.trainer.precision

    @property
    def step(self) -> int:
        return self.trainer.step

    @property
    def total_steps(self) -> int:
        return self.trainer.total_steps

    @property
    def steps_per_epoch(self) -> int:
        return self.trainer.steps_per_epoch

    @property
    def done(self) -> bool:
        return self.trainer.done

    def forward(self, images: Tensor) -> Tensor:
        return self.trainer.forward(images)

    def augmented(self, raw: Tensor, purpose: str) -> Tensor:
        return self.trainer.augmented(raw, purpose)

    def masked(self, logits: Tensor, tasks: Tensor | None = None) -> Tensor:
        return self.offered.masked(logits, tasks)

    def losses(self, logits: Tensor, labels: Tensor, tasks: Tensor | None = None) -> Tensor:
        share = self.options.label_smoothing
        return cross_entropies(self.masked(logits, tasks), labels, share, self.offered.allowed(tasks))

    def replay(self, batch: Batch, images: Tensor, labels: Tensor, tasks: Tensor | None = None) -> None:
        if self.head.by_task:
            assert tasks is not None
            own = batch.columns.get(TASK)
            own = torch.full_like(batch.labels, self.task) if own is None else own
            batch.columns[TASK] = torch.cat((own, tasks))
        batch.images = torch.cat((batch.images, images))
        batch.labels = torch.cat((batch.labels, labels))

    def advance(self, seconds: float = UNIT_SECONDS) -> dict[str, float] | None:
        """Train for about ``seconds``, or all of the task where a strategy has a loop of its own; see `Trainer`."""
        if self.done:
            return None
        began = time.perf_counter()
        for strategy in self.strategies:
            learned = strategy.learn(self)
            if learned is not None:
                return self._take(learned, time.perf_counter() - began)
        return self.trainer.advance(seconds)

    def _take(self, learned: Learned, seconds: float) -> dict[str, float]:
        progress = self.trainer.progress
        progress.step = self.trainer.total_steps = learned.steps
        progress.seconds += seconds
        return {"train/loss": learned.loss, "lr": self.options.lr}

    @property
    def recordable(self) -> bool:
        return all(strategy.recordable for strategy in self.strategies)

    def before_forward(self, training: Training, batch: Batch) -> None:
        batch.by_rows = self.by_rows
        if self.head.by_task and self.tasks is not None:
            batch.columns[TASK] = self.tasks[batch.indices].to(batch.labels.device, non_blocking=True)
        for strategy in self.strategies:
            strategy.before_forward(self, batch)

    def loss(self, training: Training, batch: Batch, loss: Tensor) -> Tensor:
        for strategy in self.strategies:
            loss = strategy.loss(self, batch, loss)
        return loss

    def after_backward(self, training: Training, batch: Batch) -> None:
        for strategy in self.strategies:
            strategy.after_backward(self, batch)

    def after_step(self, training: Training, batch: Batch) -> None:
        for strategy in reversed(self.strategies):
            strategy.after_step(self, batch)

    def enter(self, task: int) -> None:
        """Tell the strategies whose images come next."""
        for strategy in self.strategies:
            strategy.enter_task(self, task)

    def state_dict(self) -> dict[str, Any]:
        """Of the strategies, for the trainer, whose state holds all."""
        return {"strategies": [strategy.state_dict() for strategy in self.strategies]}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        for strategy, state in zip(self.strategies, saved["strategies"], strict=True):
            strategy.load_state_dict(state)


def optimizers_for(model: Classifier, options: TrainingOptions, head: HeadMasks) -> Optimizers:
    """Fresh optimizers for a model, as the options say."""
    return Optimizers(model, options.optimizer, options.lr, options.momentum, options.weight_decay, head.layers)
