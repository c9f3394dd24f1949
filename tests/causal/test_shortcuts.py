"""A planted shortcut: a first or a second network helps the worst group, which the cross-entropy gives up."""

from __future__ import annotations

import pytest
import torch

from engram.backbone.contract import ObjectiveSetting
from engram.backbone.data.columns import numbered
from engram.backbone.data.sets import MemorySplit
from engram.backbone.hardware import Machine
from engram.backbone.nets.making import build
from engram.backbone.objectives.cross_entropy import CrossEntropy
from engram.backbone.training.loop import Trainer
from engram.backbone.training.options import TrainingOptions
from engram.causal.objectives.afr import AFR
from engram.causal.objectives.dfr import DFR
from engram.causal.objectives.eiil import EIIL
from engram.causal.objectives.jtt import jtt
from engram.causal.objectives.lff import LfF
from engram.causal.objectives.reference_options import AFROptions, DFROptions, EIILOptions, JTTOptions, LfFOptions

SHAPE = (1, 8, 8)
TRAINING = {"batch_size": 64, "optimizer": "adamw", "lr": 3e-3, "weight_decay": 0.0, "precision": "fp32"}


def split(count, seed, planted):
    """A bar that stands or lies on a ground that is brighter for one class: the bar says it, the ground mostly does."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    ground = torch.where(torch.rand(count, generator=random) < planted, labels, 1 - labels)
    images = torch.randint(60, (count, *SHAPE), generator=random) + 45 * ground.view(-1, 1, 1, 1)
    place = torch.randint(1, 6, (count, 2), generator=random)
    for image, label, (i, j) in zip(images, labels.tolist(), place.tolist(), strict=True):
        image[0, slice(i - 1, i + 3) if label else i, j if label else slice(j - 1, j + 3)] += 110
    groups = tuple(f"{label} {each}" for label, each in zip(labels.tolist(), ground.tolist(), strict=True))
    return MemorySplit(images.clamp(max=255).to(torch.uint8), labels, {"group": groups})


def trained(objective, data, epochs):
    torch.manual_seed(0)
    model = build("lenet5", {}, SHAPE, 2, torch.full((1,), 0.3), torch.full((1,), 0.2))
    trainer = Trainer(model, data, TrainingOptions(epochs=epochs, **TRAINING), Machine("cpu", "fp32"), objective)
    while not trainer.done:
        trainer.advance()
    return trainer.scored_model.eval()


@torch.no_grad()
def worst(model, data):
    right = model(data.images).argmax(1) == data.labels
    groups, names = numbered(data.columns["group"])
    return min(right[groups == number].double().mean().item() for number in range(len(names)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "make, options, planted, epochs, gain",
    [
        (jtt, JTTOptions(), 0.95, 8, 0.5),
        (EIIL, EIILOptions(then="groupdro", rate=0.1), 0.95, 8, 0.5),
        (LfF, LfFOptions(), 0.9, 8, 0.02),
        (DFR, DFROptions(), 0.9, 4, 0.3),
        (DFR, DFROptions(on="train"), 0.9, 4, 0.3),
        (AFR, AFROptions(), 0.9, 4, 0.3),
    ],
    ids=("jtt", "eiil", "lff", "dfr", "dfr-train", "afr"),
)
def test_the_worst_group_is_better_than_after_as_many_epochs_of_cross_entropy(make, options, planted, epochs, gain):
    data, held, test = split(1200, 0, planted), split(400, 1, 0.8), split(1000, 2, 0.5)
    reference = trained(CrossEntropy(), data, 4)
    setting = ObjectiveSetting(
        data=data, outputs=2, label_smoothing=0.0, device="cpu", validation=held, reference=reference
    )
    before = worst(reference if epochs == 4 else trained(CrossEntropy(), data, epochs), test)
    found = worst(trained(make(options, setting), data, epochs), test)
    assert found > before + gain, (before, found)
