"""Trainings that one process does alone, or several together: run as a script it is one of these.

    python trainings.py STORE OUT NAME...        with RANK and WORLD_SIZE set

The first process writes what it found to OUT, a JSON object by names.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from engram.backbone import ranks
from engram.backbone.contract import Hook, Objective, ObjectiveSetting
from engram.backbone.data.sets import MemorySplit
from engram.backbone.errors import UserError
from engram.backbone.hardware import Machine
from engram.backbone.measures.scoring import score
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.making import build
from engram.backbone.objectives.cross_entropy import CrossEntropy
from engram.backbone.objectives.distillation import Distillation
from engram.backbone.objectives.every_step import EveryStep
from engram.backbone.registry import Registry
from engram.backbone.training.loop import Trainer
from engram.backbone.training.options import TrainingOptions
from engram.backbone.training.preparing import prepare

PLAIN = TrainingOptions(epochs=2, batch_size=16, optimizer="sgd", lr=0.05, weight_decay=1e-3, precision="fp32", seed=5)
MEAN, STD = torch.tensor([0.35]), torch.tensor([0.2])


def blobs(count: int = 50, frames: int | None = None) -> MemorySplit:
    """Images of three classes, in two environments; 50 are batches of 16 and one of 2."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 100, (count, *(() if frames is None else (frames,)), 1, 10, 10), generator=generator)
    rows = torch.arange(10) * 3 // 10
    bright = 120 * (rows == labels[:, None])
    images += bright.view(count, *(() if frames is None else (1,)), 1, 10, 1)
    environments = tuple("ab"[each] for each in (torch.arange(count) // 3 % 2).tolist())
    present = torch.eye(3, dtype=torch.bool)[torch.stack((labels, torch.arange(count) // 3 % 3))].any(0)
    columns = {"environment": environments, "group": environments, "present": present}
    return MemorySplit(images.to(torch.uint8), labels, columns)


def network(net="lenet5", adapter=None, adapted=None, **options):
    registry = Registry.discover()
    torch.manual_seed(0)
    model = build(net, options, (1, 10, 10), 3, MEAN, STD)
    prepare(model, blobs(), 5)
    if adapter is not None:
        made = registry.options("adapters", adapter)(**(adapted or {}))
        model = Classifier(registry.load("adapters", adapter)(model.backbone, made, None), model.head, MEAN, STD)
    return model


def objective(name, data, **options):
    registry = Registry.discover()
    cls = registry.options("objectives", name)
    reference = network(width=0.25) if registry.entry("objectives", name).asks.reference else None
    setting = ObjectiveSetting(data=data, outputs=3, label_smoothing=0.1, device="cpu", reference=reference)
    return registry.load("objectives", name)(cls and cls(**options), setting)


def trainer(model=None, count=50, frames=None, loss=None, precision="fp32", **recipe):
    data = blobs(count, frames)
    made = None if loss is None else loss(data) if callable(loss) else objective(loss, data)
    return Trainer(
        network(width=0.5) if model is None else model,
        data,
        replace(PLAIN, **recipe),
        Machine("cpu", precision),
        made,
    )


def taught(data):
    machine = Machine("cpu", "fp32")
    student = network(width=0.5)
    return Distillation(CrossEntropy(), network(width=1.0), torch.arange(3), student.normalise, 0.5, 2.0, machine)


def normed(**more):
    return network("vgg-tiny", width=0.25, **more)


AUGMENTED = {"flip": "random", "translate": 2, "affine": 0.1, "elastic": 0.5, "cutout": 3, "noise": 0.2, "occlude": 0.3}
CASES = {
    "lenet": trainer,
    "equal": lambda: trainer(count=48),
    "one-left": lambda: trainer(count=33),
    "adamw": lambda: trainer(optimizer="adamw", lr=2e-3, ema=0.9, clip=0.5, l2=1e-3, label_smoothing=0.1),
    "batchnorm": lambda: trainer(normed()),
    "recomputed": lambda: trainer(normed(), gradient_checkpointing=True),
    "augmented": lambda: trainer(**AUGMENTED),
    "alternate": lambda: trainer(flip="alternate", randaugment=1),
    "events": lambda: trainer(frames=4, event_drop=0.5, time_jitter=0.3, time_shift=1),
    "dropout": lambda: trainer(network("mlp", units=20, dropout=0.3)),
    "spiking": lambda: trainer(normed(adapter="snn.spiking", adapted={"steps": 3})),
    "every-step": lambda: trainer(
        normed(adapter="snn.spiking", adapted={"steps": 3}), loss=lambda data: EveryStep(CrossEntropy(), 0.1, 0.8)
    ),
    "generative": lambda: trainer(normed(adapter="feedback.generative"), epochs=1),
    "feedback": lambda: trainer(normed(adapter="feedback.gated", adapted={"steps": 3, "dropout": 0.2})),
    "taught": lambda: trainer(loss=taught),
    **{
        name: lambda name=name: trainer(normed(), loss=name)
        for name in (
            "irm",
            "vrex",
            "coral",
            "mmd",
            "groupdro",
            "reweight",
        )
    },
    **{name: lambda name=name: trainer(loss=name) for name in ("jtt", "eiil", "present")},
    "eiil-groupdro": lambda: trainer(loss=lambda data: objective("eiil", data, then="groupdro")),
    "bf16": lambda: trainer(normed(), precision="bf16"),
}


class Noisy(nn.Module):
    """A layer that draws at random, by no name that anybody knows."""

    def forward(self, x):
        return x + 0.01 * torch.randn_like(x) if self.training else x


class Keeping(nn.Module):
    """A layer that keeps what it saw, of the rows of one process."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen.copy_(x.detach().sum())
        return x


class Looking(Hook):
    """Is called around every step."""


class OfImages(Objective):
    wants = ("images",)


def with_layer(layer):
    model = network(width=0.5)
    model.head = nn.Sequential(layer, model.head)
    return trainer(model)


def hooked():
    model = network(width=0.5)
    return Trainer(model, blobs(), PLAIN, Machine("cpu", "fp32"), hooks=(Looking(),))


REFUSED = {
    "many": lambda: trainer(batch_size=1),
    "drawing": lambda: with_layer(Noisy()),
    "keeping": lambda: with_layer(Keeping()),
    "folded": lambda: trainer(network("mlp", units=20, dropout=0.3), frames=4),
    "images": lambda: trainer(loss=lambda data: OfImages()),
    "hooked": hooked,
}


def found(name: str) -> dict[str, list[float]]:
    """The loss of every step of a training, and what its network scores."""
    try:
        training = {**CASES, **REFUSED}[name]()
        steps = []
        for _ in range(training.total_steps):
            before = training.progress.loss_sum.clone() if training.step % training.steps_per_epoch else 0.0
            training.advance(0)
            steps.append(float(training.progress.loss_sum - before))
    except UserError as error:
        return {"refused": str(error)}
    scores = score(training.scored_model, training.data, "cpu")
    buffers = [float(each.double().abs().sum()) for each in training.model.buffers()]
    return {"steps": steps, "scores": list(scores.values()), "buffers": buffers}


if __name__ == "__main__":
    torch.set_num_threads(1)
    store, out, *names = sys.argv[1:]
    here = ranks.join("cpu", store)
    results = {name: found(name) for name in names}
    if here.leads:
        Path(out).write_text(json.dumps(results))
    here.leave()
