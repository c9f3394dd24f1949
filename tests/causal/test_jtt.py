"""What a first network gets wrong counts more."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from engram.backbone.contract import Batch, ObjectiveSetting, Outputs
from engram.backbone.data.sets import MemorySplit
from engram.backbone.errors import UserError
from engram.backbone.nets.classifier import Classifier
from engram.backbone.objectives.every_step import EveryStep
from engram.causal.objectives.jtt import JTT, jtt
from engram.causal.objectives.reference_options import JTTOptions

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
WRONG = torch.tensor([False, True, False, False, False, True, False, False])


def asked(rows):
    images = torch.zeros(len(rows), 1, 2, 2)
    return Batch(images, images, LABELS[rows], rows)


def test_the_loss_is_that_of_a_set_that_has_every_error_several_times():
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    batch = asked(torch.arange(8))
    loss = JTT(WRONG, 5.0)(Outputs(logits), batch, 0)
    often = torch.arange(8).repeat_interleave(torch.where(WRONG, 5, 1))
    torch.testing.assert_close(loss, F.cross_entropy(logits[often], LABELS[often]))
    torch.testing.assert_close(batch.losses.mean(), loss)


def test_weights_belong_to_images_and_not_to_rows():
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    objective, rows = JTT(WRONG, 5.0), torch.tensor([5, 0, 1])
    batch = asked(rows)
    objective(Outputs(logits[rows]), batch, 0)
    whole = asked(torch.arange(8))
    objective(Outputs(logits), whole, 0)
    torch.testing.assert_close(batch.losses, whole.losses[rows])
    steps = torch.stack([logits[rows], 2 * logits[rows]])
    each = [objective(Outputs(step), asked(rows), 0) for step in steps]
    torch.testing.assert_close(EveryStep(objective)(Outputs(steps[-1], steps), asked(rows), 0), sum(each) / 2)


class Corner(torch.nn.Module):
    """The first two pixels."""

    in_shape, feature_dim, stage_channels, steps, readout = (1, 2, 2), 2, (1,), 1, "mean"

    def forward(self, x):
        return x.flatten(1)[:, :2]


def test_errors_are_those_of_the_reference():
    images = torch.tensor([[255, 0], [255, 0], [0, 255], [255, 0]], dtype=torch.uint8)
    data = MemorySplit(F.pad(images, (0, 2)).view(4, 1, 2, 2), torch.tensor([0, 1, 1, 0]))
    model = Classifier(Corner(), torch.nn.Identity(), torch.zeros(1), torch.ones(1))
    setting = ObjectiveSetting(data=data, outputs=2, label_smoothing=0.1, device="cpu", reference=model)
    made = jtt(JTTOptions(upweight=3.0), setting)
    assert made.wrong.tolist() == [False, True, False, False] and made.label_smoothing == 0.1
    assert [(row["answer"], row["images"]) for row in made.tables()["reference"]] == [("wrong", 1), ("right", 3)]
    with pytest.raises(UserError, match=r"the reference network of jtt must be right on some .* got 0 of 3 wrong"):
        jtt(JTTOptions(), replace(setting, data=data.select(torch.tensor([0, 2, 3]))))
