"""Our streams as Avalanche's benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engram.continual.avalanche.guard import module, quiet
from engram.continual.experiment.stream import Stream

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from engram.backbone.data.sets import Split


def unit(images: Tensor) -> Tensor:
    """images: [N, C, H, W] uint8 -> float32 in [0, 1], as torchvision gives them."""
    return images.float() / 255


def to_benchmark(stream: Stream, look: Callable[[Tensor], Tensor] = unit) -> Any:
    """A stream as an ``avalanche.benchmarks.CLScenario`` of the streams ``train``, ``test`` and maybe ``validation``.

    An experience for every task, with the very images and labels that our strategies get: classes numbered as the head
    numbers its outputs, remainders in the first tasks. Task labels are the task's number where the head is ``multi``
    and 0 where it is not, as Avalanche has it. All images are held in memory; nothing draws a random number.

    Args:
        stream: of tasks.
        look: what the images of a task, [N, C, H, W] uint8, become.

    Raises:
        UserError: Avalanche is not installed.
    """
    scenarios = module("avalanche.benchmarks.scenarios.dataset_scenario")
    aware = module("avalanche.benchmarks.scenarios.task_aware")
    supervised = module("avalanche.benchmarks.scenarios.supervised")
    sets: dict[str, list[Any]] = {"train": [], "test": [], "validation": []}
    for index in range(len(stream)):
        task, several = stream.task(index), stream.head.kind == "multi"
        for name, split in (("train", task.train), ("test", task.test), ("validation", task.validation)):
            if split is not None:
                sets[name].append(dataset(split, index if several else 0, look, several=several))
    with quiet():
        made = scenarios.benchmark_from_datasets(**{name: found for name, found in sets.items() if found})
        made = supervised.with_classes_timeline(aware.with_task_labels(made))
    made.n_classes_per_exp = [len(outputs) for outputs in stream.outputs]  # these two for ICaRL, which expects what
    made.classes_order = [label for outputs in stream.outputs for label in outputs]  # only deprecated scenarios have
    for held in made.streams.values():
        for experience in held:
            experience.benchmark = made
    return made


def dataset(split: Split, task_label: int, look: Callable[[Tensor], Tensor], *, several: bool) -> Dataset[Any]:
    """A split as an Avalanche data set of (image, label, task label), the labels as plain numbers.

    Where there are several task labels they are a list, because 0.6.0 cannot join data sets with different single
    numbers; where there is one it stays a number, because ICaRL cannot join it with a list.
    """
    sets = module("avalanche.benchmarks.utils.classification_dataset")
    ((images, labels, _),) = split.batches(torch.arange(len(split)), len(split), "cpu")
    tasks = [task_label] * len(split) if several else task_label
    with quiet():
        return sets._make_taskaware_tensor_classification_dataset(
            look(images), labels, targets=labels.tolist(), task_labels=tasks
        )
