"""A stream: one data set as a sequence of tasks, made from a seed and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from backbone.data.load import Data
from backbone.data.sets import Split
from backbone.errors import must
from backbone.seeding import generator
from continual.configs import BY_CLASS, StreamConfig
from continual.heads import Head
from continual.transforms import Transform, permuted
from continual.views import seen

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Task:
    """One task of a stream. Labels are outputs of the network's head."""

    index: int
    train: Split
    validation: Split | None
    test: Split
    outputs: tuple[int, ...]
    """The labels its images may have."""
    told: bool = True
    """Whether the learner is told that it begins and ends."""


class Stream:
    """The tasks of a data set, made when they are asked for; tests are kept.

    Attributes:
        width: outputs of the head.
        names: of the outputs.
        head: which outputs count for which task.
        shuffle: whether the images of a task may come in any order.
    """

    def __init__(self, config: StreamConfig, data: Data, device: str) -> None:
        """Raises UserError when the classes do not suffice for the tasks."""
        c = config.resolved()
        self.config, self.data = c, data
        self.groups = _groups(c, len(data.classes))
        self.outputs = _outputs(c, self.groups)
        self.width = max(max(outputs) for outputs in self.outputs) + 1
        self.names = _names(self, data.classes)
        self.shuffle = c.scenario != "task-free"
        assert c.head is not None
        self.head = Head(c.head, self.outputs, self.width, device)
        self._parts: dict[tuple[int, Part], Split | None] = {}

    def __len__(self) -> int:
        return len(self.groups)

    def task(self, index: int) -> Task:
        train = self.part(index, "train")
        test = self.part(index, "test")
        assert train is not None and test is not None
        told = self.config.scenario != "task-free"
        return Task(index, train, self.part(index, "validation"), test, self.outputs[index], told)

    def part(self, index: int, part: Part) -> Split | None:
        """The images of one task; those for training are kept until another task's are asked for."""
        if (index, part) not in self._parts:
            if part == "train":
                self._parts = {key: value for key, value in self._parts.items() if key[1] != "train"}
            self._parts[index, part] = self._make(index, part)
        return self._parts[index, part]

    def _make(self, index: int, part: Part) -> Split | None:
        split: Split | None = getattr(self.data, part)
        if split is None:
            return None
        labels = split.labels
        table = torch.full((len(self.data.classes),), -1)
        table[list(self.groups[index])] = torch.tensor(self.outputs[index])
        chosen = (table[labels] >= 0).nonzero().squeeze(1)
        return seen(split if len(chosen) == len(labels) else split.select(chosen), table, self._transform(index))

    def _transform(self, index: int) -> Transform | None:
        if self.config.scenario == "permuted":
            return permuted(self.data.in_shape, self.config.seed, index)
        return None


def _groups(c: StreamConfig, classes: int) -> list[tuple[int, ...]]:
    """The classes of every task; remainders go to the first tasks."""
    if c.scenario not in BY_CLASS:
        return [tuple(range(classes))] * c.tasks
    least = 2 if c.head in ("multi",) or c.scenario == "domain" else 1
    if c.tasks * least > classes:
        what = f"at most {classes // least} for {classes} classes"
        raise must("--tasks", what, c.tasks, "Use fewer tasks, a set of more classes, or --scenario permuted.")
    order: Sequence[int] = range(classes)
    if c.class_order == "shuffled":
        order = torch.randperm(classes, generator=generator(c.seed, "class order")).tolist()
    each, more = divmod(classes, c.tasks)
    sizes = [each + (index < more) for index in range(c.tasks)]
    starts = [sum(sizes[:index]) for index in range(c.tasks)]
    return [tuple(order[start : start + size]) for start, size in zip(starts, sizes, strict=True)]


def _outputs(c: StreamConfig, groups: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Which output stands for each class of each task."""
    if c.scenario == "domain":
        if c.head == "multi":
            starts = [sum(len(group) for group in groups[:index]) for index in range(len(groups))]
            return [tuple(range(start, start + len(group))) for start, group in zip(starts, groups, strict=True)]
        return [tuple(range(len(group))) for group in groups]
    if c.scenario in BY_CLASS or c.head != "multi":
        return groups
    return [tuple(index * len(group) + place for place in group) for index, group in enumerate(groups)]


def _names(stream: Stream, classes: tuple[str, ...]) -> tuple[str, ...]:
    meanings: list[list[str]] = [[] for _ in range(stream.width)]
    for group, outputs in zip(stream.groups, stream.outputs, strict=True):
        for member, output in zip(group, outputs, strict=True):
            if classes[member] not in meanings[output]:
                meanings[output].append(classes[member])
    names = [" or ".join(each) for each in meanings]
    repeated = len(set(names)) < len(names)
    return tuple(f"{name} ({output})" if repeated else name for output, name in enumerate(names))


def tasks_of(labels: Tensor, stream: Stream) -> Tensor:
    """labels: [N] outputs -> [N] the first task that uses each."""
    first = torch.zeros(stream.width, dtype=torch.long)
    for index in reversed(range(len(stream))):
        first[list(stream.outputs[index])] = index
    return first.to(labels.device)[labels]
