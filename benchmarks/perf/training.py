"""Training images per second, and the accuracy reached: our loop against a plain one on the same network.

The peer is what a careful user writes first: ``DataLoader`` with two workers and torchvision transforms per image,
contiguous fp32 tensors, AdamW. Same network, recipe, augmentation, number of steps; MNIST and CIFAR-10 where
``ENGRAM_DATA`` has them, else enlarged digits.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from backbone.contract import Scalar
from backbone.data.load import Data, load
from backbone.errors import UserError
from backbone.hardware import choose_precision
from backbone.metrics import score
from backbone.nets.classifier import Classifier, build
from backbone.training import Recipe, Trainer
from benchmarks.perf.harness import Row, interleaved

ROUNDS = 5
BATCH = 128
CASES = (("lenet5", "mnist", 120), ("vgg-tiny", "mnist", 40), ("vgg-small", "cifar10", 8), ("airnet", "cifar10", 4))
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


def _recipe(epochs: int) -> Recipe:
    return Recipe(
        epochs=epochs,
        batch_size=BATCH,
        optimizer="adamw",
        lr=2e-3,
        momentum=0.9,
        weight_decay=0.05,
        schedule="constant",
        warmup=0.0,
        label_smoothing=0.0,
        flip="none",
        translate=2,
        cutout=0,
        randaugment=0,
        ema=0.0,
        clip=0.0,
        gradient_checkpointing=False,
        seed=0,
    )


def _data(name: str) -> Data:
    options: dict[str, Scalar] = {}
    try:
        return load(name, options, root=Path(os.environ.get("ENGRAM_DATA", "data")))
    except UserError:
        return load("digits", options, root=Path())


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _model(net: str, data: Data) -> Classifier:
    torch.manual_seed(0)
    return build(net, {}, data.in_shape, len(data.classes), data.mean, data.std)


class _Peer:
    """The plain loop; ``run`` trains for a number of steps, across epochs if need be."""

    def __init__(self, net: str, data: Data) -> None:
        images, labels = next(data.train.batches(torch.arange(len(data.train)), len(data.train), "cpu"))
        self.device = _device()
        self.model = _model(net, data).to(self.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 2e-3, weight_decay=0.05)
        dataset = _Images(images, labels, data.mean, data.std)
        self.loader = DataLoader(dataset, BATCH, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True)
        self.batches = self._forever()

    def _forever(self) -> Generator[tuple[Tensor, Tensor], None, None]:
        while True:
            yield from self.loader

    def close(self) -> None:
        """End the workers now: torn down later, in a process forked for the next loader, they complain."""
        self.batches.close()
        del self.loader

    def run(self, steps: int) -> None:
        self.model.train()
        for _ in range(steps):
            images, labels = (tensor.to(self.device) for tensor in next(self.batches))
            self.optimizer.zero_grad()
            F.cross_entropy(self.model.forward_normalised(images), labels).backward()
            self.optimizer.step()
        if self.device == "cuda":
            torch.cuda.synchronize()


def _ours(net: str, data: Data, epochs: int) -> Trainer:
    device = _device()
    return Trainer(_model(net, data), data.train, _recipe(epochs), device, choose_precision("auto", device))


def _run_ours(trainer: Trainer, steps: int) -> None:
    """Exactly ``steps`` steps: units of work end on a clock, so each unit is one step here."""
    goal = trainer.progress.step + steps
    while trainer.progress.step < goal:
        trainer.advance(seconds=0.0)


def measure() -> list[Row]:
    rows = []
    for net, name, steps in CASES:
        data = _data(name)
        if net != "lenet5" and data.name == "digits":
            continue  # 8x8 pictures say nothing about networks for larger ones
        rows.append(_speed(net, data, steps))
        if net == "lenet5":
            rows.append(_accuracy(net, data))
    return rows


def _speed(net: str, data: Data, steps: int) -> Row:
    trainer, peer = _ours(net, data, epochs=10_000), _Peer(net, data)
    ours, theirs = interleaved(lambda: _run_ours(trainer, steps), lambda: peer.run(steps), ROUNDS)
    peer.close()
    return Row(
        name=f"training/{net}/{data.name}",
        ours=steps * BATCH / ours,
        peer=steps * BATCH / theirs,
        peer_name=PEER,
        unit="images/s",
        higher_is_better=True,
        n=ROUNDS,
    )


def _accuracy(net: str, data: Data) -> Row:
    """Validation accuracy after the same number of steps, two epochs (digits: 40)."""
    epochs = 2 if len(data.train) > 10_000 else 40
    trainer, peer = _ours(net, data, epochs), _Peer(net, data)
    while not trainer.done:
        trainer.advance()
    peer.run(trainer.total_steps)
    peer.close()
    validation = data.validation or data.test
    return Row(
        name=f"training/{net}/{data.name}/validation-accuracy",
        ours=score(trainer.scored_model, validation, peer.device)["accuracy"],
        peer=score(peer.model, validation, peer.device)["accuracy"],
        peer_name=PEER,
        unit="fraction",
        higher_is_better=True,
        n=1,
    )
