"""Environments found by what a first network relies on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from engram.backbone.contract import Batch, ObjectiveSetting, Outputs
from engram.backbone.data.sets import MemorySplit
from engram.backbone.errors import UserError
from engram.backbone.nets.classifier import Classifier
from engram.causal.objectives.eiil import EIIL, least_invariant
from engram.causal.objectives.environment_options import GroupDROOptions, IRMOptions
from engram.causal.objectives.groupdro import GroupDRO
from engram.causal.objectives.irm import IRM
from engram.causal.objectives.reference_options import EIILOptions


def penalties(logits, labels, assigned):
    """The IRM penalty of soft environments, by autograd through the scale."""
    scale = torch.ones((), dtype=torch.double, requires_grad=True)
    each = F.cross_entropy(scale * logits, labels, reduction="none")
    slopes = [torch.autograd.grad(q @ each, scale, create_graph=True)[0] for q in (assigned, 1 - assigned)]
    return sum(slope.square() for slope in slopes)


@pytest.mark.parametrize("classes", [2, 4])
def test_no_soft_assignment_has_a_larger_penalty(classes):
    """Gradients lead a soft assignment to the one that is found, as they do in the paper."""
    random = torch.Generator().manual_seed(classes)
    logits = 2 * torch.randn(40, classes, generator=random, dtype=torch.double)
    labels = torch.arange(40) % classes
    found = least_invariant(logits, labels)
    best = penalties(logits, labels, found.double()).item()
    soft = torch.randn(40, generator=random, dtype=torch.double).requires_grad_()
    for _ in range(60):
        (up,) = torch.autograd.grad(penalties(logits, labels, soft.sigmoid()), soft)
        soft = (soft + 2 * up).detach().requires_grad_()
    assert 0.9 * best < penalties(logits, labels, soft.sigmoid()).item() < best
    same = (soft.sigmoid() > 0.5) == found
    assert same.all() or not same.any()
    for _ in range(20):
        other = torch.rand(40, generator=random, dtype=torch.double)
        assert penalties(logits, labels, other.round()).item() <= best
    if classes == 2:
        assert torch.equal(found, logits.argmax(1) != labels)


class Colour(torch.nn.Module):
    """The first two pixels: how red and how green an image is."""

    in_shape, feature_dim, stage_channels, steps, readout = (1, 2, 2), 2, (1,), 1, "mean"

    def forward(self, x):
        return x.flatten(1)[:, :2]


def coloured(count=200, **columns):
    """Colour tells the class in four of five images; the rest of the picture says nothing."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    planted = torch.rand(count, generator=random) < 0.2
    colours = torch.where(planted, 1 - labels, labels)
    images = torch.zeros(count, 4, dtype=torch.uint8)
    images[torch.arange(count), colours] = 255
    return MemorySplit(images.view(count, 1, 2, 2), labels, columns), planted


def setting(data):
    reference = Classifier(Colour(), torch.nn.Identity(), torch.zeros(1), torch.ones(1))
    return ObjectiveSetting(data=data, outputs=2, label_smoothing=0.0, device="cpu", reference=reference)


def test_a_reference_that_relies_on_colour_finds_where_colour_fails():
    data, planted = coloured()
    found = EIIL(EIILOptions(), setting(data))
    assert torch.equal(found.fails, planted)
    rows = found.tables()["environments"]
    assert [(row["environment"], row["images"], row["reference right"]) for row in rows] == [
        ("fails", int(planted.sum()), 0.0),
        ("holds", int((~planted).sum()), 1.0),
    ]


@pytest.mark.parametrize("then", ["irm", "groupdro"])
def test_what_follows_is_told_the_environments_that_were_found(then):
    data, planted = coloured()
    options = EIILOptions(penalty=7.0) if then == "irm" else EIILOptions(then="groupdro", rate=0.5)
    found = EIIL(options, setting(data))
    named = MemorySplit(
        data.images, data.labels, {"environment": (~planted).long(), "group": 2 * data.labels + ~planted}
    )
    if then == "irm":
        known = IRM(IRMOptions(penalty=7.0), setting(named))
    else:
        known = GroupDRO(GroupDROOptions(rate=0.5), setting(named))
    rows = torch.tensor([3, 50, 9, 120, 77, 10, 1, 0])
    logits = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    losses = []
    for each in (found, known):
        batch = Batch(torch.zeros(8, 1, 2, 2), torch.zeros(8, 1, 2, 2), data.labels[rows], rows)
        batch.columns = {name: torch.as_tensor(named.columns[name])[rows] for name in each.columns}
        losses += [each(Outputs(logits), batch, step) for step in range(2)]
    assert torch.equal(losses[0], losses[2]) and torch.equal(losses[1], losses[3])


def test_a_reference_that_makes_no_mistakes_is_refused():
    data, planted = coloured()
    right = data.select((~planted).nonzero().flatten())
    with pytest.raises(UserError, match="the reference network of eiil must be better surer on some training images"):
        EIIL(EIILOptions(), setting(right))


def test_options_of_what_does_not_follow_are_refused():
    for options, said in (
        (
            EIILOptions(then="groupdro", penalty=3.0),
            "--objective.penalty must be left out beside",
        ),
        (EIILOptions(rate=0.5), "--objective.rate must be left out beside"),
    ):
        (line,) = options.problems()
        assert line.startswith(said)
    assert EIILOptions(penalty=3.0).problems() == EIILOptions(then="groupdro", rate=0.5).problems() == []
