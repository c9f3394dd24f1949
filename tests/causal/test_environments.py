"""Objectives that compare environments, against autograd, brute force and exhaustive means."""

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import grad

from engram.backbone.contract import Batch, ObjectiveSetting, Outputs
from engram.backbone.data.sets import MemorySplit
from engram.backbone.errors import UserError
from engram.backbone.objectives.every_step import EveryStep
from engram.causal.objectives.coral import CORAL
from engram.causal.objectives.environment_options import (
    GroupDROOptions,
    IRMOptions,
    MatchingOptions,
    ReweightOptions,
    VRExOptions,
)
from engram.causal.objectives.groupdro import GroupDRO
from engram.causal.objectives.irm import IRM
from engram.causal.objectives.mmd import MMD, RATES
from engram.causal.objectives.reweight import Reweight
from engram.causal.objectives.vrex import VREx

NAMES = ("a", "b", "c", "d")


def setting(groups=NAMES, **more):
    images, labels = torch.zeros(len(groups), 1, 2, 2, dtype=torch.uint8), torch.zeros(len(groups), dtype=torch.long)
    data = MemorySplit(images, labels, {"environment": tuple(groups), "group": tuple(groups)})
    return ObjectiveSetting(data=data, outputs=3, label_smoothing=more.pop("smoothing", 0.0), device="cpu", **more)


def batch(labels, groups, times=1):
    images = torch.zeros(len(labels), 1, 2, 2)
    made = Batch(images, images, torch.as_tensor(labels), torch.arange(len(labels)))
    made.columns = {name: torch.as_tensor(groups) for name in ("environment", "group")}
    return made.repeated(times)


def drawn(rows=12, classes=3, environments=(0, 1, 3), seed=0):
    """Logits, labels and environments of a batch that lacks one of four, in any order."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=random, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(classes, (rows,), generator=random)
    return logits, labels, torch.tensor(environments).repeat(rows)[:rows][torch.randperm(rows, generator=random)]


def irm(estimate="square", penalty=7.0, smoothing=0.0):
    return IRM(IRMOptions(penalty=penalty, estimate=estimate), setting(smoothing=smoothing))


@torch.no_grad()
def penalty_of(logits, labels, groups, estimate):
    """P alone."""
    strong, weak = (irm(estimate, penalty)(Outputs(logits), batch(labels, groups), 0) for penalty in (2.0, 1.0))
    return (strong - weak).item()


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_closed_form_of_irm_is_that_of_autograd(classes, smoothing):
    """Value and gradient of the loss, by gradients of gradients as published."""
    logits, labels, groups = drawn(classes=classes)
    ours = irm(smoothing=smoothing)(Outputs(logits), batch(labels, groups), 0)
    risks, slopes = [], []
    for each in groups.unique():
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        rows = groups == each
        risks.append(F.cross_entropy(scale * logits[rows], labels[rows], label_smoothing=smoothing))
        slopes.append(grad(risks[-1], scale, create_graph=True)[0])
    want = torch.stack(risks).mean() + 7 * torch.stack(slopes).square().mean()
    torch.testing.assert_close(ours, want)
    torch.testing.assert_close(grad(ours, logits)[0], grad(want, logits)[0])


def test_two_logits_are_penalised_as_their_difference_is_by_binary_cross_entropy():
    """The one output of the published network for coloured MNIST, and the two of ours."""
    logits, labels, groups = drawn(classes=2)
    ours = irm()(Outputs(logits), batch(labels, groups), 0)
    single = (logits[:, 1] - logits[:, 0]).detach().requires_grad_()
    want = torch.zeros((), dtype=torch.float64)
    for each in groups.unique():
        scale, rows = torch.ones((), dtype=torch.float64, requires_grad=True), groups == each
        risk = F.binary_cross_entropy_with_logits(scale * single[rows], labels[rows].double())
        want = want + (risk + 7 * grad(risk, scale, create_graph=True)[0].square()) / 3
    torch.testing.assert_close(ours, want)
    torch.testing.assert_close(grad(ours, logits)[0][:, 1], grad(want, single)[0])
    torch.testing.assert_close(logits.grad, None)


def test_outputs_that_are_not_on_offer_are_not_there():
    logits, labels, groups = drawn(classes=3)
    offered = torch.tensor([True, True, False])
    labels = labels % 2
    for each in ("square", "halves", "pairs"):
        masked = Outputs(logits.masked_fill(~offered, -1e30), offered=offered)
        ours = irm(each, smoothing=0.1)(masked, batch(labels, groups), 0)
        want = irm(each, smoothing=0.1)(Outputs(logits[:, :2]), batch(labels, groups), 0)
        torch.testing.assert_close(ours, want)
        torch.testing.assert_close(grad(ours, logits)[0], grad(want, logits)[0])


def test_the_product_of_two_halves_is_right_on_average():
    """Over all ways to halve a batch it is that of all pairs, and that over all batches is the square, exactly."""
    logits, labels, _ = drawn(rows=6)
    halved = []
    for first in combinations(range(6), 3):
        order = [row for pair in zip(first, sorted({*range(6)} - {*first}), strict=True) for row in pair]
        halved.append(penalty_of(logits[order], labels[order], [0] * 6, "halves"))
    every = penalty_of(logits, labels, [0] * 6, "pairs")
    assert np.mean(halved) == pytest.approx(every, rel=1e-9)

    few, names = logits[:3], labels[:3]
    truth = penalty_of(few, names, [1] * 3, "square")
    batches = [list(rows) for rows in product(range(3), repeat=3)]
    means = {
        each: np.mean([penalty_of(few[rows], names[rows], [1] * 3, each) for rows in batches])
        for each in ("pairs", "halves", "square")
    }
    assert means["pairs"] == pytest.approx(truth, rel=1e-9) and means["halves"] == pytest.approx(truth, rel=1e-9)
    assert means["square"] > 1.01 * truth


def test_halves_are_of_each_environment_and_take_its_rows_in_turn():
    logits, labels, groups = drawn(rows=11)
    slopes, want = ((logits.softmax(1) - F.one_hot(labels, 3)) * logits).sum(1), []
    for each in groups.unique():
        own = slopes[groups == each]
        want.append(own[::2].mean() * own[1::2].mean())
    got = penalty_of(logits, labels, groups, "halves")
    assert got == pytest.approx(torch.stack(want).mean().item(), rel=1e-9)


@pytest.mark.parametrize("estimate", ["square", "halves", "pairs"])
def test_steps_of_an_image_are_one_row(estimate):
    """Where every step is to be right no half of a batch shares an image with the other."""
    logits, labels, groups = drawn(rows=9)
    ours = EveryStep(irm(estimate))
    got = ours(Outputs(logits, torch.stack([logits] * 3)), batch(labels, groups), 0)
    torch.testing.assert_close(got, irm(estimate)(Outputs(logits), batch(labels, groups), 0))


def test_vrex_is_the_mean_and_the_variance_of_risks():
    logits, labels, groups = drawn()
    got = VREx(VRExOptions(penalty=3.0), setting())(Outputs(logits), batch(labels, groups), 0)
    losses = F.cross_entropy(logits, labels, reduction="none").detach().numpy()
    risks = [losses[groups.numpy() == each].mean() for each in (0, 1, 3)]
    assert got.item() == pytest.approx(np.mean(risks) + 3 * np.var(risks), rel=1e-9)


def features_and_batch(rows=13):
    logits, labels, groups = drawn(rows=rows)
    groups[groups == 3] = 0
    groups[:3] = torch.tensor([3, 1, 2])  # 2 has a single image, 3 has none but this
    features = torch.randn(rows, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 3
    risks = [F.cross_entropy(logits[groups == each], labels[groups == each]).item() for each in range(4)]
    return features.requires_grad_(), Outputs(logits, features=features), batch(labels, groups), np.mean(risks)


def pairs_of(features, groups):
    """Of environments with two images at least."""
    there = [features[groups == each] for each in range(4) if (groups == each).sum() > 1]
    assert len(there) == 2
    return combinations(there, 2)


def test_coral_is_that_of_loops_over_pairs():
    features, outputs, rows, risk = features_and_batch()
    values, groups = features.detach().numpy(), rows.columns["environment"].numpy()
    found = [
        ((x.mean(0) - y.mean(0)) ** 2).mean() + ((np.cov(x.T) - np.cov(y.T)) ** 2).mean()
        for x, y in pairs_of(values, groups)
    ]
    got = CORAL(MatchingOptions(penalty=2.0), setting())(outputs, rows, 0)
    assert got.item() == pytest.approx(risk + 2 * np.mean(found), rel=1e-5)


def test_mmd_is_that_of_loops_over_pairs():
    features, outputs, rows, risk = features_and_batch()
    values, groups = features.detach().numpy(), rows.columns["environment"].numpy()

    def kernel(x, y):
        return np.mean([[sum(np.exp(-rate * ((a - b) ** 2).sum()) for rate in RATES) for b in y] for a in x])

    found = [kernel(x, x) + kernel(y, y) - 2 * kernel(x, y) for x, y in pairs_of(values, groups)]
    got = MMD(MatchingOptions(penalty=2.0), setting())(outputs, rows, 0)
    assert got.item() == pytest.approx(risk + 2 * np.mean(found), rel=1e-5)


@pytest.mark.parametrize("kind", [CORAL, MMD])
def test_more_environments_make_more_pairs(kind):
    """Of three alike in size: the mean over pairs is that of the pairs one by one."""
    logits, labels, _ = drawn()
    features = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
    groups = torch.tensor([0, 1, 2] * 4)
    whole = kind(MatchingOptions(), setting())

    def difference(chosen):
        rows = torch.isin(groups, torch.tensor(chosen))
        outputs = Outputs(logits[rows], features=features[rows])
        two = batch(labels[rows], groups[rows])
        return (whole(outputs, two, 0) - kind(MatchingOptions(penalty=0.0), setting())(outputs, two, 0)).item()

    pairs = [difference(pair) for pair in ([0, 1], [0, 2], [1, 2])]
    assert difference([0, 1, 2]) == pytest.approx(np.mean(pairs), rel=1e-5) and min(pairs) > 0


KINDS = {
    "irm": lambda s: IRM(IRMOptions(), s),
    "irm pairs": lambda s: IRM(IRMOptions(estimate="pairs"), s),
    "vrex": lambda s: VREx(VRExOptions(), s),
    "coral": lambda s: CORAL(MatchingOptions(), s),
    "mmd": lambda s: MMD(MatchingOptions(), s),
    "groupdro": lambda s: GroupDRO(GroupDROOptions(), s),
    "reweight": lambda s: Reweight(ReweightOptions(), s),
}


@pytest.mark.parametrize("groups", [[2] * 5, [0], [0, 3], [1, 1, 1, 1, 0]], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_that_lacks_environments_gives_numbers(kind, groups):
    logits, labels, _ = drawn(rows=len(groups))
    features = torch.zeros(len(groups), 4, requires_grad=True)  # all alike, at which distances have no slope
    ours = KINDS[kind](setting())
    loss = ours(Outputs(logits, features=features), batch(labels, groups), 0)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all() and logits.grad.any()
    assert features.grad is None or features.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_one_environment_is_refused_unless_it_is_meant(kind):
    with pytest.raises(UserError, match="must be two values at least; got only"):
        KINDS[kind](setting(("only",) * 4))
    logits, labels, _ = drawn(rows=6)
    alone = KINDS[kind](setting(("only",) * 4, alone=True))
    outputs = Outputs(logits, features=torch.randn(6, 4, generator=torch.Generator().manual_seed(2)))
    loss = alone(outputs, batch(labels, [0] * 6), 0)
    if not kind.startswith("irm"):  # whose penalty is that of the one
        torch.testing.assert_close(loss.double(), F.cross_entropy(logits, labels))


def test_a_column_that_makes_no_groups_is_refused():
    masks = MemorySplit(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.zeros(4).long(), {"group": torch.rand(4)})
    with pytest.raises(UserError, match="'group' must be names or whole numbers, which make groups"):
        Reweight(ReweightOptions(), replace(setting(), data=masks))
    with pytest.raises(UserError, match="one with a column 'hospital'; got columns: environment, group"):
        GroupDRO(GroupDROOptions(column="hospital"), setting())


def test_weights_of_groups_are_those_of_the_algorithm():
    ours = GroupDRO(GroupDROOptions(rate=0.7, adjustment=0.5), setting("aaabbcdddd"))
    q, sizes = np.full(4, 0.25), np.array([3, 2, 1, 4])
    for step in range(5):
        logits, labels, groups = drawn(environments=(0, 1, 2, 3), seed=step)
        losses = F.cross_entropy(logits, labels, reduction="none").detach().numpy()
        risks = np.array([losses[groups.numpy() == each].mean() for each in range(4)])
        q = q * np.exp(0.7 * (risks + 0.5 / np.sqrt(sizes)))
        q = q / q.sum()
        loss = ours(Outputs(logits), batch(labels, groups), step)
        assert loss.item() == pytest.approx(q @ risks, rel=1e-5)
        torch.testing.assert_close(ours.weights, torch.tensor(q, dtype=torch.float32))


@pytest.mark.parametrize("rate", [0.01, 3.0, 200.0])
def test_weights_sum_to_one_and_a_missing_group_keeps_its_own(rate):
    random = np.random.default_rng(0)
    ours = GroupDRO(GroupDROOptions(rate=rate), setting(NAMES * 3))
    for step in range(30):
        there = random.permutation(4)[: random.integers(1, 5)]
        logits, labels, groups = drawn(environments=tuple(there.tolist()), seed=step)
        absent, before = [each for each in range(4) if each not in there], ours.weights
        loss = ours(Outputs(logits * 10), batch(labels, groups), step)
        assert ours.weights.sum().item() == pytest.approx(1, abs=1e-5) and bool((ours.weights >= 0).all())
        torch.testing.assert_close(ours.weights[absent], before[absent], rtol=1e-4, atol=1e-7)
        assert loss.isfinite()
    worst = torch.tensor([900.0, 0.0, 0.0]).repeat(8, 1)
    for step in range(20):
        ours(Outputs(worst), batch([1, 0, 0, 0] * 2, [0, 1, 2, 3] * 2), step)
    assert ours.weights.argmax() == 0  # no weight is ever lost


def test_weights_of_groups_go_on_to_the_last_bit_and_begin_anew_in_a_task():
    ours, again = (GroupDRO(GroupDROOptions(rate=0.7), setting()) for _ in range(2))
    logits, labels, groups = drawn()
    ours(Outputs(logits), batch(labels, groups), 0)
    again.load_state_dict({name: value.clone() for name, value in ours.state_dict().items()})
    losses = [each(Outputs(logits), batch(labels, groups), 1) for each in (ours, again)]
    assert torch.equal(*losses) and torch.equal(ours.weights, again.weights)
    ours.enter(setting("xyx" * 8).data)  # another task's groups
    assert ours.weights.tolist() == [0.5, 0.5] and ours.sizes.tolist() == [16, 8]


def test_reweighted_groups_count_alike():
    logits, labels, _ = drawn()
    groups = torch.tensor([0] * 8 + [1] * 3 + [2])
    rows = batch(labels, groups)
    ours = Reweight(ReweightOptions(), setting(groups.tolist()))
    each = [F.cross_entropy(logits[groups == group], labels[groups == group]) for group in range(3)]
    torch.testing.assert_close(ours(Outputs(logits), rows, 0), torch.stack(each).mean())
    torch.testing.assert_close(rows.losses.mean(), torch.stack(each).mean())
