"""Our network in the shape Avalanche wants: from the images of its benchmark to logits, masked as the head says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from torch import Tensor, nn

from engram.backbone.contract import TaskHead
from engram.backbone.hardware import Precision, autocast
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.layout import arranged
from engram.continual.avalanche.guard import module

OFF = -1e4
"""Logit of an output that is switched off: small enough for any softmax, and its square is finite."""
GENERATED = (0.1307, 0.3081)
"""Mean and deviation that Avalanche's generator takes off its images."""


def as_they_are(images: Tensor) -> Tensor:
    """images: [N, C, H, W] uint8 -> the same."""
    return images


def generated(images: Tensor) -> Tensor:
    """images: [N, 1, H, W] uint8 -> float32, as Avalanche's generator makes them."""
    return (images.float() / 255 - GENERATED[0]) / GENERATED[1]


class Entrance(nn.Module):
    """From images of a benchmark, [N, C, H, W] uint8 or float, to what the backbone sees.

    Attributes:
        normalised: whether images come normalised already, as in our tests.
        generated: whether they are shifted and scaled as Avalanche's generator makes them.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.normalise = classifier.normalise
        self.seen_by = (classifier.backbone,)  # in a tuple: no part of this module
        self.normalised = self.generated = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.normalised:
            x = self.normalise(x * GENERATED[1] + GENERATED[0] if self.generated else x)
        return arranged(x, self.seen_by[0])


class Features(nn.Module):
    """Images to features [N, feature_dim]: the part of a network that ICaRL takes apart."""

    def __init__(self, classifier: Classifier, precision: Precision) -> None:
        super().__init__()
        self.entrance, self.backbone, self.precision = Entrance(classifier), classifier.backbone, precision

    def forward(self, x: Tensor) -> Tensor:
        with autocast(x.device.type, self.precision):
            return self.backbone(self.entrance(x)).float()


class Network(nn.Module):
    """Images to logits [N, K], the same for all tasks.

    Attributes:
        task: the one at hand, where Avalanche does not say: for a head that grows, and within PackNet.
    """

    def __init__(self, classifier: Classifier, head: TaskHead, precision: Precision) -> None:
        super().__init__()
        self.entrance, self.classifier = Entrance(classifier), classifier
        self.head, self.precision, self.task = head, precision, 0

    def logits(self, x: Tensor) -> Tensor:
        with autocast(x.device.type, self.precision):
            return self.classifier.forward_normalised(self.entrance(x)).float()

    def forward(self, x: Tensor) -> Any:
        logits, allowed = self.logits(x), self.head.allowed(self.task)
        return logits if allowed is None else logits.masked_fill(~allowed, OFF)


@cache
def _multi_task() -> type[Network]:
    base = module("avalanche.models.dynamic_modules").MultiTaskModule

    class MultiTaskNetwork(Network, base):
        """Images and task labels [N] to logits [N, K], those of other tasks' outputs switched off."""

        def forward(self, x: Tensor, task_labels: Tensor | int | None = None) -> Any:
            if task_labels is None:
                return self.forward_all_tasks(x)
            return self._only(self.logits(x), task_labels)

        def forward_single_task(self, x: Tensor, task_label: int) -> Tensor:
            return self._only(self.logits(x), task_label)

        def forward_all_tasks(self, x: Tensor) -> dict[int, Tensor]:
            logits = self.logits(x)
            return {task: self._only(logits, task) for task in self.known_train_tasks_labels}

        def _only(self, logits: Tensor, tasks: Tensor | int) -> Tensor:
            allowed = self.head.allowed(tasks)
            return logits if allowed is None else logits.masked_fill(~allowed, OFF)

    return MultiTaskNetwork


def network(classifier: Classifier, head: TaskHead, precision: Precision) -> Network:
    """A network that shares the classifier's weights, with task labels where the head needs them."""
    return (_multi_task() if head.by_task else Network)(classifier, head, precision)


def entrances(model: nn.Module) -> list[Entrance]:
    return [part for part in model.modules() if isinstance(part, Entrance)]


def enter(model: nn.Module, task: int) -> None:
    """Say which task's images come next."""
    for part in model.modules():
        if isinstance(part, Network):
            part.task = task


@contextmanager
def normalised(model: nn.Module) -> Iterator[None]:
    """Images come as our tests have them."""
    for entrance in entrances(model):
        entrance.normalised = True
    yield
    for entrance in entrances(model):
        entrance.normalised = False
