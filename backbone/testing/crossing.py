"""What is made of several things at once: a classifier of a network, adapters and a head, trained by an objective."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from engram.backbone.contract import Named, Objective, ObjectiveSetting
from engram.backbone.data.load import Data
from engram.backbone.hardware import Machine
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.heads import linear_form
from engram.backbone.nets.making import build
from engram.backbone.options import options_of
from engram.backbone.saved.made import Made
from engram.backbone.saved.model import load_model, save_model
from engram.backbone.testing.case import require
from engram.backbone.testing.experiments import plain_state
from engram.backbone.testing.samples import Things, seeded
from engram.backbone.testing.workshop import Workshop
from engram.backbone.training.loop import Trainer
from engram.backbone.training.options import TrainingOptions
from engram.backbone.training.preparing import prepare

OPTIONS = TrainingOptions(epochs=2, batch_size=32, optimizer="sgd", lr=0.01, schedule="constant")


def check_together(shop: Workshop, things: Things, objective: Named) -> None:
    """One step of training, gone on with to the last bit, and what is saved afterwards."""
    data = shop.loaded(objective.name)
    trainer, again = (_trainer(shop, things, objective, data) for _ in range(2))
    for _ in range(2):
        trainer.advance(0.0)  # a single step
        if trainer.step == 1:
            again.load_state_dict(plain_state(trainer.state_dict(), "the state of a training"))
    again.advance(0.0)
    for name, value in trainer.model.state_dict().items():
        require(torch.equal(value, again.model.state_dict()[name]), f"{name} is the same bits after a resume")
    _is_saved(trainer.model.eval(), things, data)


def _trainer(shop: Workshop, things: Things, objective: Named, data: Data) -> Trainer:
    name, options = things.backbone.name, things.backbone.options
    classes, mean, std = len(data.classes), data.mean, data.std
    model, first = (
        seeded(lambda: build(name, options, data.in_shape, classes, mean, std, things.head, things.adapters), seed)
        for seed in range(2)
    )
    prepare(model, data.train, OPTIONS.seed, "prepare")
    setting = ObjectiveSetting(
        data=data.train,
        outputs=classes,
        label_smoothing=0.0,
        device="cpu",
        validation=data.validation,
        reference=first.eval(),
    )
    return Trainer(model, data.train, OPTIONS, Machine("cpu", "fp32"), made(shop, objective, setting))


def made(shop: Workshop, objective: Named, setting: ObjectiveSetting) -> Objective:
    """An objective of its own options."""
    options = options_of(shop.registry, "objectives", objective.name, objective.options)
    return shop.registry.load("objectives", objective.name)(options, setting)


def _is_saved(model: Classifier, things: Things, data: Data) -> None:
    record = Made(
        backbone=things.backbone,
        adapters=things.adapters,
        head=things.head,
        classes=data.classes,
        in_shape=data.in_shape,
    )
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder), model, record)
        again, _ = load_model(Path(folder))
    images, _, _ = next(iter(data.test.batches(torch.arange(len(data.test)), 8, "cpu")))
    with torch.no_grad():
        logits, features = model(images), model.backbone(model.normalise(images))
        require(torch.equal(again(images), logits), "saved and loaded it gives the same bits")
        if (layer := linear_form(again.head)) is not None:
            require(torch.allclose(layer(features), logits, atol=1e-4), "as_linear() gives the same logits")
