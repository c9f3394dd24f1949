"""Training images per second, and the accuracy reached: our loop against a plain one on the same network.

The peer is what a careful user writes first: ``DataLoader`` with two workers and torchvision transforms per image,
contiguous fp32 tensors, AdamW. Same network, recipe, augmentation, number of steps; MNIST and CIFAR-10 where
``ENGRAM_DATA`` has them, else enlarged digits.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from engram.backbone.contract import Scalar
from engram.backbone.data.load import Data, load
from engram.backbone.errors import UserError
from engram.backbone.hardware import Machine, choose_precision, suit_threads
from engram.backbone.measures.scoring import score
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.making import build
from engram.backbone.training.loop import Trainer
from engram.backbone.training.optim import relative_rate
from engram.backbone.training.options import TrainingOptions
from engram.backbone.training.preparing import prepare
from engram.benchmarks.perf.harness import Row, interleaved

ROUNDS = 5
BATCH = 128
LR, WEIGHT_DECAY, WARMUP = 2e-3, 0.05, 0.2
SEEDS = 3
THREADS = torch.get_num_threads()
CASES = (("lenet5", "mnist", 120), ("vgg-small", "cifar10", 8), ("airnet", "cifar10", 4))
PEER = "DataLoader (2 workers) + fp32 + contiguous"


class _Images(Dataset[tuple[Tensor, int]]):
    """One image at a time, transformed as torchvision users do."""

    def __init__(self, images: Tensor, labels: Tensor, mean: Tensor, std: Tensor) -> None:
        self.images, self.labels = images, labels.tolist()
        scale = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean.tolist(), std.tolist())]
        self.transform = v2.Compose([v2.RandomCrop(images.shape[-1], padding=2, padding_mode="reflect"), *scale])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def _options(epochs: int, seed: int) -> TrainingOptions:
    chosen = {"optimizer": "adamw", "lr": LR, "weight_decay": WEIGHT_DECAY, "schedule": "onecycle", "warmup": WARMUP}
    values: dict[str, Any] = {**chosen, "epochs": epochs, "batch_size": BATCH, "translate": 2}
    return TrainingOptions(**values, seed=seed)


def _data(name: str) -> Data:
    options: dict[str, Scalar] = {}
    try:
        return load(name, options, root=Path(os.environ.get("ENGRAM_DATA", "data")))
    except UserError:
        return load("digits", options, root=Path())


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _model(net: str, data: Data, seed: int) -> Classifier:
    torch.manual_seed(seed)
    return build(net, {}, data.in_shape, len(data.classes), data.mean, data.std)


class _Peer:
    """The plain loop; ``run`` trains for a number of steps, across epochs if need be.

    Args:
        steps: of the whole training, over which the rate rises and falls; None leaves it constant.
    """

    def __init__(self, net: str, data: Data, seed: int = 0, steps: int | None = None) -> None:
        images, labels, _ = next(data.train.batches(torch.arange(len(data.train)), len(data.train), "cpu"))
        self.device = _device()
        self.model = _model(net, data, seed).to(self.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), LR, weight_decay=WEIGHT_DECAY)

        def rate(step: int) -> float:
            return relative_rate("onecycle", (step + 1) / (steps + 1), WARMUP) if steps else 1.0

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, rate)
        dataset = _Images(images, labels, data.mean, data.std)
        self.loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=2, persistent_workers=True)
        self.batches = self._forever()

    def _forever(self) -> Generator[tuple[Tensor, Tensor], None, None]:
        while True:
            yield from self.loader

    def close(self) -> None:
        """End the workers now: torn down later, in a process forked for the next loader, they complain."""
        self.batches.close()
        del self.loader

    def run(self, steps: int) -> None:
        torch.set_num_threads(THREADS)
        self.model.train()
        for _ in range(steps):
            images, labels = (tensor.to(self.device) for tensor in next(self.batches))
            self.optimizer.zero_grad()
            F.cross_entropy(self.model.forward_normalised(images), labels).backward()
            self.optimizer.step()
            self.schedule.step()
        if self.device == "cuda":
            torch.cuda.synchronize()


def _ours(net: str, data: Data, epochs: int, seed: int = 0) -> Trainer:
    device = _device()
    model, options = _model(net, data, seed), _options(epochs, seed)
    prepare(model, data.train, seed)
    return Trainer(model, data.train, options, Machine(device, choose_precision("auto", device)))


def _epoch(trainer: Trainer) -> None:
    """One epoch as ``backbone.train`` does it: small batches on one thread."""
    torch.set_num_threads(THREADS)
    suit_threads(BATCH * math.prod(trainer.data.in_shape))
    trainer.advance(seconds=math.inf)


def measure() -> list[Row]:
    rows = []
    try:
        for net, name, steps in CASES:
            data = _data(name)
            if net != "lenet5" and data.name == "digits":
                continue  # 8x8 pictures say nothing about networks for larger ones
            rows.append(_speed(net, data, steps))
            if net == "lenet5":
                rows += _accuracies(net, data)
    finally:
        torch.set_num_threads(THREADS)
    return rows


def _speed(net: str, data: Data, steps: int) -> Row:
    whole = len(data.train) // BATCH  # batches of one size, so that a step is a step
    steps = min(steps, whole)
    few, all_whole = (replace(data, train=data.train.select(torch.arange(n * BATCH))) for n in (steps, whole))
    trainer, peer = _ours(net, few, epochs=10_000), _Peer(net, all_whole)
    ours, theirs = interleaved(lambda: _epoch(trainer), lambda: peer.run(steps), ROUNDS)
    peer.close()
    return Row(
        name=f"training/{net}/{data.name}/{trainer.precision}",
        ours=steps * BATCH / ours,
        peer=steps * BATCH / theirs,
        peer_name=PEER,
        unit="images/s",
        higher_is_better=True,
        n=ROUNDS,
    )


def _accuracies(net: str, data: Data) -> list[Row]:
    """Validation accuracy after the same one epoch (digits: 20), mean and spread over seeds."""
    epochs = 1 if len(data.train) > 10_000 else 20
    ours, theirs = zip(*(_pair(net, data, epochs, seed) for seed in range(SEEDS)), strict=True)

    def row(ending: str, of: Callable[[Sequence[float]], float], higher: bool) -> Row:
        return Row(
            name=f"training/{net}/{data.name}/validation-accuracy-{ending}",
            ours=of(ours),
            peer=of(theirs),
            peer_name=PEER,
            unit="fraction",
            higher_is_better=higher,
            n=SEEDS,
        )

    return [row("mean", statistics.mean, True), row("deviation", statistics.stdev, False)]


def _pair(net: str, data: Data, epochs: int, seed: int) -> tuple[float, float]:
    trainer = _ours(net, data, epochs, seed)
    peer = _Peer(net, data, seed, trainer.total_steps)
    while not trainer.done:
        _epoch(trainer)
    peer.run(trainer.total_steps)
    peer.close()
    validation = data.validation or data.test
    first = score(trainer.scored_model, validation, peer.device)["accuracy"]
    return first, score(peer.model, validation, peer.device)["accuracy"]
