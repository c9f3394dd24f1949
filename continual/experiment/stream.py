"""A stream: one data set as a sequence of tasks, made from a seed and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from engram.backbone.contract import Task
from engram.backbone.data.columns import Columns
from engram.backbone.data.load import Data
from engram.backbone.data.sets import Split
from engram.backbone.data.views import Transform, View, seen
from engram.backbone.errors import must
from engram.backbone.seeding import generator
from engram.continual.experiment.configs import BY_CLASS, MIXED, StreamConfig
from engram.continual.tasks.heads import HeadMasks
from engram.continual.tasks.transforms import coloured, noisy, permuted, rotated

Part = Literal["train", "validation", "test"]


class Stream:
    """The tasks of a data set, made when they are asked for; tests are kept.

    Attributes:
        width: outputs of the head.
        meanings: for each output the names of the classes it stands for.
        names: of the outputs.
        changes_images: whether tasks show images in ways of their own.
        head: which outputs count for which task.
        shuffle: whether the images of a task may come in any order.
        in_shape, mean, std: as in the data, of the images as the tasks show them.
    """

    def __init__(self, config: StreamConfig, data: Data, device: str) -> None:
        """Raises UserError when the classes or images do not suffice for the tasks, or cannot be shown as asked for."""
        c = config
        if c.scenario == "noisy" and data.frames is not None:
            remedy = "Use another --scenario, such as rotated."
            raise must("images for --scenario noisy", "of grey levels or colours", "counts of events", remedy)
        if c.scenario == "coloured" and data.in_shape[0] not in (1, 3):
            remedy = "Use another --scenario, such as rotated."
            raise must("images for --scenario coloured", "of 1 or 3 channels", data.in_shape[0], remedy)
        self.config, self.data = c, data
        self.groups = _groups(c, len(data.classes))
        self.outputs = _outputs(c, self.groups)
        self.width = max(max(outputs) for outputs in self.outputs) + 1
        self.meanings = _meanings(self, data.classes)
        self.names = _names(self.meanings)
        self.changes_images = c.scenario not in BY_CLASS
        self.shuffle = c.scenario != "task-free"
        self.in_shape, self.mean, self.std = data.in_shape, data.mean, data.std
        if c.scenario == "coloured" and data.in_shape[0] == 1:
            self.in_shape = (3, *data.in_shape[1:])
            self.mean, self.std = data.mean.expand(3), data.std.expand(3)
        self.head = HeadMasks(c.head, self.outputs, self.width, device, closed=c.scenario not in MIXED)
        self._parts: dict[tuple[int, Part], Split | None] = {}
        self._need_images()

    def _need_images(self) -> None:
        """No accuracy can be told of a task without images to test."""
        remedies = {"test": "Add some, or use fewer --tasks.", "validation": "Raise --validation, or leave it out."}
        for part, remedy in remedies.items():
            split: Split | None = getattr(self.data, part)
            if split is None:
                continue
            counts = split.labels.bincount(minlength=len(self.data.classes))
            for index, group in enumerate(self.groups):
                if not counts[list(group)].sum():
                    named = ", ".join(self.data.classes[label] for label in group)
                    raise must(f"{part} images of task {index + 1}, {named},", "at least one", "none", remedy)

    def __len__(self) -> int:
        return len(self.groups)

    def task(self, index: int) -> Task:
        train = self.part(index, "train")
        test = self.part(index, "test")
        assert train is not None and test is not None
        told = self.config.scenario != "task-free"
        return Task(index, train, self.part(index, "validation"), test, self.outputs[index], told)

    def tests(self, index: int) -> Split:
        """The test images of one task, without making those to train on."""
        split = self.part(index, "test")
        assert split is not None
        return split

    def part(self, index: int, part: Part) -> Split | None:
        """The images of one task; those for training are kept until another task's are asked for."""
        if (index, part) not in self._parts:
            if part == "train":
                self._parts = {key: value for key, value in self._parts.items() if key[1] != "train"}
            self._parts[index, part] = self._make(index, part)
        return self._parts[index, part]

    def _make(self, index: int, part: Part) -> Split | None:
        return None if getattr(self.data, part) is None else seen(*self._choice(index, part))

    def shown(self, index: int, part: Part) -> View:
        """The images of one task, changed whenever they are read; nothing is copied or kept."""
        split, table, transform, columns = self._choice(index, part)
        return View(split, table, transform, columns=columns)

    def _choice(self, index: int, part: Part) -> tuple[Split, Tensor, Transform | None, Columns]:
        """The images of one task as they are in the data, the output for each class, what changes the images, and the
        column ``task``: the task that shows them.
        """
        split: Split = getattr(self.data, part)
        table = torch.full((len(self.data.classes),), -1)
        if part == "train" and self.config.scenario in MIXED:
            table = torch.arange(len(self.data.classes))
            chosen = self._mixed()[index]
        else:
            table[list(self.groups[index])] = torch.tensor(self.outputs[index])
            chosen = (table[split.labels] >= 0).nonzero().squeeze(1)
        whole = len(chosen) == len(split) and bool(chosen.equal(torch.arange(len(split))))
        task = torch.full((len(chosen),), index)
        return split if whole else split.select(chosen), table, self._transform(index, part), {"task": task}

    def _mixed(self) -> list[Tensor]:
        """Positions of the training images of every task, where tasks share classes."""
        owner = torch.zeros(len(self.data.classes), dtype=torch.long)
        for index, group in enumerate(self.groups):
            owner[list(group)] = index
        mix = blurred if self.config.scenario == "blurry" else faded
        random = generator(self.config.seed, self.config.scenario)
        return mix(owner[self.data.train.labels], len(self.groups), self.config.blur, random)

    def _transform(self, index: int, part: Part) -> Transform | None:
        c, in_shape = self.config, self.data.in_shape
        if c.scenario == "permuted":
            return permuted(in_shape, c.seed, index)
        if c.scenario == "rotated":
            return rotated(c.seed, index)
        if c.scenario == "coloured":
            return coloured(c.seed, index)
        return noisy(c.seed, index, c.tasks, part) if c.scenario == "noisy" else None


def _groups(c: StreamConfig, classes: int) -> list[tuple[int, ...]]:
    """The classes of every task; remainders go to the first tasks."""
    if c.scenario not in BY_CLASS:
        return [tuple(range(classes))] * c.tasks
    least = 2 if c.head in ("multi",) or c.scenario == "domain" else 1
    if c.tasks * least > classes:
        what = f"at most {classes // least} for {classes} classes" + (", two for each" if least > 1 else "")
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


def _meanings(stream: Stream, classes: tuple[str, ...]) -> list[list[str]]:
    meanings: list[list[str]] = [[] for _ in range(stream.width)]
    for group, outputs in zip(stream.groups, stream.outputs, strict=True):
        for member, output in zip(group, outputs, strict=True):
            if classes[member] not in meanings[output]:
                meanings[output].append(classes[member])
    return meanings


def _names(meanings: list[list[str]]) -> tuple[str, ...]:
    names = [" or ".join(each) for each in meanings]
    repeated = len(set(names)) < len(names)
    return tuple(f"{name} ({output})" if repeated else name for output, name in enumerate(names))


def blurred(owner: Tensor, tasks: int, blur: float, random: torch.Generator) -> list[Tensor]:
    """Positions of the images of every task when a share ``blur`` of them has gone to other tasks at random.

    owner: [N] the task an image's class belongs to.

    Source: Koh et al. 2022 (arXiv 2110.10031), section 3, whose share M is ``blur``.
    """
    strays = torch.rand(len(owner), generator=random) < blur
    further = torch.randint(1, max(tasks, 2), (len(owner),), generator=random)
    where = torch.where(strays, (owner + further) % tasks, owner)
    return [(where == index).nonzero().squeeze(1) for index in range(tasks)]


def faded(owner: Tensor, tasks: int, blur: float, random: torch.Generator) -> list[Tensor]:
    """Positions in the order in which the images come, cut into ``tasks`` stretches, when tasks fade into each other.

    owner: [N] int64, the task an image would be of without a blur -> ``tasks`` tensors of int64, N entries in all.
    Around every boundary the share of the next task's images rises linearly from 0 to 1, over ``blur`` of a task.

    Source: the fuzzy boundaries of van de Ven et al. 2022, "Three types of incremental learning", figure 4.
    """
    when = owner + torch.rand(len(owner), generator=random)
    when = (when + blur * (torch.rand(len(owner), generator=random) - 0.5)).abs()  # thrown back at both ends
    when = torch.where(when < tasks, when, 2 * tasks - when).clamp(max=tasks - 1e-3)
    order = when.argsort(stable=True)
    return [order[when[order].long() == index] for index in range(tasks)]
