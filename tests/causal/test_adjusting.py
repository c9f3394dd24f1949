"""Heads that adjust, against sums over models that are known whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engram.backbone.contract import Batch, Named, ObjectiveSetting, Outputs
from engram.backbone.data.sets import MemorySplit
from engram.backbone.errors import UserError
from engram.backbone.nets.making import build
from engram.backbone.training.optim import Optimizers
from engram.backbone.training.preparing import prepare
from engram.causal.heads.backdoor import Backdoor
from engram.causal.heads.clusters import k_means
from engram.causal.heads.frontdoor import Frontdoor
from engram.causal.heads.gap import nwgm_gap
from engram.causal.heads.options import BackdoorOptions, FrontdoorOptions
from engram.causal.objectives.adjusting import backdoor, frontdoor
from engram.causal.scm.graphs import model_of
from engram.causal.scm.model import Model, Variable, total_variation
from engram.causal.scm.options import ShapesScmOptions


def told(head, logits):
    """Let a head say f(x, v) = logits[x, v] of features that are one-hot in (x, class)."""
    shapes, values, classes = logits.shape
    with torch.no_grad():
        head.weight.copy_(torch.eye(classes).repeat(1, shapes))
        head.bias.zero_()
        head.shifts.zero_()
        head.gains.copy_(logits.permute(1, 0, 2).reshape(values, -1) - 1)


def features_of(shapes, classes):
    """[X, X K]: of shape x, ones where its logits are."""
    return torch.eye(shapes).repeat_interleave(classes, 1)


def trained(head, objective, joint, steps=300):
    """Train a head on one-hot features of x by the probabilities ``joint [Z, X, Y]`` themselves, as weights of rows."""
    z, x, y = (torch.from_numpy(each) for each in np.indices(joint.shape).reshape(3, -1))
    weight = torch.from_numpy(joint.reshape(-1)).float()
    features = torch.eye(joint.shape[1])[x]
    optimizers = Optimizers(head, "adamw", 0.1, 0.9, 0.0)
    for step in range(steps):
        (objective(head, features, z, y) @ weight).backward()
        optimizers.step(1 - step / steps)
    with torch.no_grad():
        return head(torch.eye(joint.shape[1])).exp().double().numpy()


def of_labels(head, features, z, y):
    """Cross-entropy of what the head answers."""
    return F.nll_loss(head(features), y, reduction="none")


def of_parts(head, features, z, y):
    """What the objectives minimise."""
    return F.nll_loss(head.given(features)[torch.arange(len(z)), z], y, reduction="none")


def xor(confounding):
    """y is x or not x, by the context: no sum of a part for x and a part for the context says it."""
    z = Variable("z", ("0", "1"), np.array([0.7, 0.3]))
    x = Variable("x", ("0", "1"), confounding * np.eye(2) + (1 - confounding) / 2, ("z",))
    swapped = np.array([[[0.9, 0.1], [0.1, 0.9]], [[0.2, 0.8], [0.8, 0.2]]])
    return Model((z, x, Variable("y", ("0", "1"), swapped, ("z", "x"))))


def fresh(features=2, classes=2, values=2, mode="exact", prior=(0.7, 0.3)):
    torch.manual_seed(0)
    head = Backdoor(features, classes, BackdoorOptions(mode=mode, confounders=values))
    head.prior.copy_(torch.tensor(prior))
    return head


def truth_of(model, ask, values=2):
    return np.stack([getattr(model, ask)("y", {"x": value}) for value in range(values)])


def test_exact_is_the_sum_over_a_known_model():
    for strength in (0.6, 0.0):
        model = model_of(ShapesScmOptions(confounding=strength))
        given = np.array(
            [[model.observational("label", {"context": z, "shape": x}) for z in range(3)] for x in range(3)]
        )
        head = fresh(9, 3, 3, prior=model.observational("context"))
        told(head.given_value, torch.from_numpy(given).float().log())
        answers = head(features_of(3, 3)).exp().detach().double().numpy()
        for shape in range(3):
            done = model.interventional("label", {"shape": shape})
            seen = model.observational("label", {"shape": shape})
            np.testing.assert_allclose(answers[shape], done, atol=1e-6)
            off = total_variation(answers[shape], seen)
            assert off > 0.2 if strength else off < 1e-6


COUNT = 1500  # of which the model's probabilities of shapes are whole numbers


def test_frontdoor_is_the_sum_over_a_known_model():
    model = model_of(ShapesScmOptions(graph="frontdoor"))
    given = np.array([[model.observational("label", {"mediator": r, "shape": x}) for r in range(3)] for x in range(3)])
    head = Frontdoor(9, 3, FrontdoorOptions(mediators=3, samples=COUNT)).eval()
    told(head.label, torch.from_numpy(given).float().log())
    with torch.no_grad():
        carried = np.array([model.observational("mediator", {"shape": x}) for x in range(3)])
        head.mediator.weight.copy_((torch.from_numpy(carried).float().log() / 3).repeat_interleave(3, 0).T)
        head.mediator.bias.zero_()
        counts = (torch.from_numpy(model.observational("shape")) * COUNT).round().long()
        head.others.copy_(features_of(3, 3).repeat_interleave(counts, 0))
        answers = head(features_of(3, 3)).exp().double().numpy()
    for shape in range(3):
        np.testing.assert_allclose(answers[shape], model.interventional("label", {"shape": shape}), atol=1e-3)


def test_trained_on_the_context_it_is_do_and_on_its_own_answers_it_is_not():
    model = xor(0.8)
    done, seen = truth_of(model, "interventional"), truth_of(model, "observational")
    assert total_variation(done, seen).min() > 0.1
    joint = model.joint()
    np.testing.assert_allclose(trained(fresh(), of_parts, joint), done, atol=1e-3)
    np.testing.assert_allclose(trained(fresh(), of_labels, joint), seen, atol=1e-3)
    free = xor(0.0)
    np.testing.assert_allclose(trained(fresh(), of_parts, free.joint()), truth_of(free, "observational"), atol=1e-3)


def test_what_is_additive_cannot_adjust():
    model = xor(0.8)
    head = fresh()
    head.given_value.gains.data.zero_()
    head.given_value.gains.requires_grad_(False)
    additive = trained(head, of_parts, model.joint())
    assert total_variation(additive, truth_of(model, "interventional")).max() > 0.1


def test_attention_answers_what_is_seen():
    model = xor(0.8)
    found = trained(fresh(mode="attention"), of_labels, model.joint())
    np.testing.assert_allclose(found, truth_of(model, "observational"), atol=1e-3)


def test_nwgm_is_exact_in_the_limit_and_further_off_the_larger_the_logits():
    gaps = []
    for scale in (1e-3, 0.3, 1.0, 3.0):
        random = torch.Generator().manual_seed(0)
        logits = torch.randn(500, 16, 4, generator=random) * scale
        gaps.append(nwgm_gap(logits, torch.full((16,), 1 / 16)).mean().item())
    assert gaps[0] < 1e-6 and gaps == sorted(gaps) and gaps[3] > 0.03
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    one = {mode: fresh(mode=mode, prior=(1.0, 0.0))(x) for mode in ("exact", "nwgm")}
    torch.testing.assert_close(one["exact"], one["nwgm"])  # a mean over one value
    both = {mode: fresh(mode=mode) for mode in ("exact", "nwgm")}
    logits = both["exact"].given_value(x)
    by_hand = (torch.tensor([0.7, 0.3]) @ logits).log_softmax(-1)
    torch.testing.assert_close(both["nwgm"](x), by_hand)
    gap = (both["exact"](x).exp() - both["nwgm"](x).exp()).abs().amax(-1)
    torch.testing.assert_close(gap, nwgm_gap(logits, both["exact"].prior))


@pytest.mark.parametrize("mode", ["exact", "nwgm", "attention"])
def test_gradients_against_finite_differences(mode):
    head = fresh(3, 2, 4, mode, (0.5, 0.3, 0.2, 0.0)).double()
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    where = head.given_value.gains
    (slope,) = torch.autograd.grad(head(x)[:, 0].sum(), where)
    moved = torch.randn(where.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start, ends = where.detach().clone(), []
    for sign in (1, -1):
        with torch.no_grad():
            where.copy_(start + sign * 1e-2 * moved)
            ends.append(head(x)[:, 0].sum())
    assert slope.isfinite().all()
    assert (ends[0] - ends[1]) / 2e-2 == pytest.approx((slope * moved).sum().item(), rel=2e-2, abs=1e-4)


def clusters(counts):
    """Points around as many places."""
    random = torch.Generator().manual_seed(0)
    return torch.cat([torch.randn(count, 3, generator=random) * 0.1 + 5 * i for i, count in enumerate(counts)])


def test_clusters_are_found_and_those_without_points_weigh_nothing():
    x = clusters((30, 20, 10))
    centres, nearest = k_means(x, 3, torch.Generator().manual_seed(0))
    assert sorted(nearest.bincount().tolist()) == [10, 20, 30]
    for number in range(3):
        torch.testing.assert_close(centres[number], x[nearest == number].mean(0))
    few = torch.tensor([[0.0], [1.0]]).repeat(5, 1)
    _, members = k_means(few, 4, torch.Generator().manual_seed(0))
    assert len(members.unique()) == 2
    head = Backdoor(1, 2, BackdoorOptions(confounders=4))
    data = MemorySplit(torch.zeros(10, 1, 1, 1, dtype=torch.uint8), torch.zeros(10, dtype=torch.int64))
    head.fill(few, torch.arange(10), data, 0)
    assert head.prior.sum() == 1 and (head.prior == 0).sum() == 2
    answers = head(torch.randn(3, 1))
    assert answers.isfinite().all()
    torch.testing.assert_close(answers.exp().sum(-1), torch.ones(3))
    answers.sum().backward()
    assert all(each.grad is None or each.grad.isfinite().all() for each in head.parameters())


@pytest.mark.slow  # importing it takes longer than all else here
def test_clusters_against_scikit_learn():
    from sklearn.cluster import KMeans

    x = clusters((40, 25, 25, 10))
    _, nearest = k_means(x, 4, torch.Generator().manual_seed(1))
    theirs = KMeans(4, n_init=5, random_state=0).fit(x.numpy())
    ours = sum((x[nearest == n] - x[nearest == n].mean(0)).square().sum() for n in range(4))
    assert ours.item() == pytest.approx(theirs.inertia_, rel=1e-4)


def split(count=40):
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 4, 4), generator=random, dtype=torch.uint8)
    names = (*("abc"[number % 3] for number in range(count - 1)), "d")
    labels = torch.arange(count) % 2
    return MemorySplit(images, labels, {"context": names, "mediator": names})


def classifier(head, **options):
    torch.manual_seed(0)
    one = torch.ones(1)
    return build("mlp", {"units": 5, "depth": 1}, (1, 4, 4), 2, 0 * one, one, Named(head, 1, options))


def test_a_fresh_head_is_filled_from_the_training_images():
    data = split()
    model = classifier("causal.backdoor", confounders=6)
    prepare(model, data, 3)
    head = model.head
    assert head.prior.tolist() == pytest.approx([13 / 40, 13 / 40, 13 / 40, 1 / 40, 0, 0])
    features = model.backbone(model.normalise(data.images))
    member = torch.tensor(["abcd".index(name) for name in data.columns["context"]])
    means = torch.stack([features[member == number].mean(0) for number in range(4)])
    own = (means - head.prior[:4] @ means).detach()
    torch.testing.assert_close(head.given_value.gains[:4], 0.1 * own / own.square().mean(0).sqrt().clamp(min=1e-6))
    assert not head.given_value.gains[4:].any()
    others = classifier("causal.frontdoor", samples=7)
    prepare(others, data, 3)
    assert all((features - row).abs().sum(1).min() < 1e-4 for row in others.head.others)


@pytest.mark.parametrize(("head", "option"), [("causal.backdoor", "confounders"), ("causal.frontdoor", "mediators")])
def test_more_values_than_the_head_has_are_refused(head, option):
    with pytest.raises(UserError, match=rf"--head\.{option} must be at least the 4 values of the column"):
        prepare(classifier(head, **{option: 3}), split(), 0)


def test_frontdoor_keeps_the_last_images_of_training():
    head = Frontdoor(2, 2, FrontdoorOptions(samples=5)).train()
    first, second = torch.ones(3, 2), torch.full((4, 2), 2.0)
    head(first)
    head(second)
    assert head.others[:, 0].tolist() == [2, 2, 2, 2, 1]
    (head(first).sum() + head(second).sum()).backward()  # a step with several passes
    assert head.others[:, 0].tolist() == [2, 2, 2, 2, 1]
    head.eval()(first)
    assert head.others[:, 0].tolist() == [2, 2, 2, 2, 1]


def test_objectives_are_the_likelihood_given_the_variable():
    setting = ObjectiveSetting(data=split(), outputs=2, label_smoothing=0.0, device="cpu")
    head = fresh(3, 2, 4, prior=(0.25,) * 4)
    x, labels = torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 1, 0])
    values = torch.tensor([0, 3, 1, 2, 2, 0])
    batch = Batch(torch.zeros(6, 1), x, labels, torch.arange(6), {"context": values, "mediator": values})
    loss = backdoor(None, setting)(Outputs(head(x), given=head.given(x)), batch, 0)
    by_hand = [
        -head.given_value(x)[row, z].log_softmax(0)[y] for row, (z, y) in enumerate(zip(values, labels, strict=True))
    ]
    torch.testing.assert_close(loss, torch.stack(by_hand).mean())
    front = Frontdoor(3, 2, FrontdoorOptions(mediators=4)).eval()
    loss = frontdoor(None, setting)(Outputs(front(x), given=front.given(x)), batch, 0)
    parts = F.cross_entropy(front.mediator(x), values) + F.cross_entropy(
        front.label(x)[torch.arange(6), values], labels
    )
    torch.testing.assert_close(loss, parts)
    smooth = backdoor(None, replace(setting, label_smoothing=0.2))(Outputs(head(x), given=head.given(x)), batch, 0)
    each = F.cross_entropy(head.given_value(x)[torch.arange(6), values], labels, label_smoothing=0.2)
    torch.testing.assert_close(smooth, each)


def test_an_objective_refuses_another_head_by_name():
    setting = ObjectiveSetting(data=split(), outputs=2, label_smoothing=0.0, device="cpu")
    model = classifier("causal.frontdoor")
    with pytest.raises(
        UserError, match=r"the head for contexts must be .*; got Frontdoor\. Add --head causal\.backdoor"
    ):
        backdoor(None, setting).trained(model)
    model.head = nn.Linear(5, 2)
    with pytest.raises(UserError, match=r"got Linear\. Add --head causal\.frontdoor"):
        frontdoor(None, setting).trained(model)
