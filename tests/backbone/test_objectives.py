"""Objectives and samplers against their formulas."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from engram.backbone.contract import Batch, Objective, ObjectiveSetting, Outputs, Predicting
from engram.backbone.data.sets import MemorySplit
from engram.backbone.data.views import View, seen
from engram.backbone.errors import UserError
from engram.backbone.hardware import Machine
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.needs import need
from engram.backbone.nets.plain import copied
from engram.backbone.objectives.cross_entropy import CrossEntropy
from engram.backbone.objectives.every_step import EveryStep
from engram.backbone.objectives.present import Present, present
from engram.backbone.seeding import generator
from engram.backbone.training.loop import Trainer
from engram.backbone.training.samplers import Balanced, Uniform, Weighted


def batch(labels, **more):
    images = torch.zeros(len(labels), 1, 2, 2)
    return Batch(images, images, labels, torch.arange(len(labels)), **more)


def split(groups):
    count = len(groups)
    labels = torch.arange(count) % 3
    return MemorySplit(torch.zeros(count, 1, 2, 2, dtype=torch.uint8), labels, {"group": groups})


def test_losses_of_rows_are_those_of_the_mean_and_of_every_step():
    logits, labels = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 2, 1, 0])
    rows = batch(labels, by_rows=True)
    loss = EveryStep(CrossEntropy(0.1), 0.0)(Outputs(logits.mean(0), logits), rows, 0)
    each = [F.cross_entropy(step, labels, reduction="none", label_smoothing=0.1) for step in logits]
    torch.testing.assert_close(rows.losses, torch.stack(each).mean(0))
    torch.testing.assert_close(loss, rows.losses.mean())


@pytest.mark.parametrize("each", [False, True], ids=["one task", "rows of several tasks"])
def test_labels_are_smoothed_over_the_outputs_on_offer(each):
    """What is off is not there: the loss is that of a head with the offered outputs alone."""
    logits, labels = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 4, 1])
    on = [[1, 4], [0, 2, 4], [1]] if each else [[1, 3, 4]] * 3
    offered = torch.zeros(3, 5, dtype=torch.bool)
    for row, chosen in enumerate(on):
        offered[row, chosen] = True
    outputs = Outputs(logits.masked_fill(~offered, -1e30), offered=offered if each else offered[0])
    want = [
        F.cross_entropy(row[chosen], torch.tensor(chosen.index(label)), label_smoothing=0.2)
        for row, chosen, label in zip(logits, on, labels.tolist(), strict=True)
    ]
    rows = batch(labels)
    torch.testing.assert_close(CrossEntropy(0.2)(outputs, rows, 0), torch.stack(want).mean())
    torch.testing.assert_close(rows.losses, torch.stack(want))


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_a_discounted_loss_weighs_steps_from_the_last_one_back(share):
    logits, labels = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 2, 1, 0])
    weights = [0.5**3, 0.5**2, 0.5, 1.0]
    rows = batch(labels, by_rows=True)
    loss = EveryStep(CrossEntropy(0.1), share, 0.5)(Outputs(logits[-1], logits), rows, 0)
    own = [F.cross_entropy(step, labels, reduction="none", label_smoothing=0.1) for step in logits]
    own = sum(w * each for w, each in zip(weights, own, strict=True)) / sum(weights)
    drawn = sum(w * (step - 1).square().mean() for w, step in zip(weights, logits, strict=True)) / sum(weights)
    torch.testing.assert_close(rows.losses, own)
    torch.testing.assert_close(loss, (1 - share) * own.mean() + share * drawn)
    unasked = EveryStep(CrossEntropy(0.1), share, 0.5)(Outputs(logits[-1], logits), batch(labels), 0)
    assert torch.equal(unasked, loss)
    once = EveryStep(CrossEntropy(), share=0.0, discount=0.5)(Outputs(logits[0], logits[:1]), batch(labels), 0)
    torch.testing.assert_close(once, F.cross_entropy(logits[0], labels))
    nearly_one = EveryStep(CrossEntropy(), share, 1 - 1e-7)(Outputs(logits[-1], logits), batch(labels), 0)
    torch.testing.assert_close(
        nearly_one, EveryStep(CrossEntropy(), share)(Outputs(logits[-1], logits), batch(labels), 0)
    )


def test_an_objective_sees_what_it_wants_of_the_network(trainer):
    class Watching(CrossEntropy):
        wants = ("steps", "features")

        def __call__(self, outputs, batch, step):
            assert outputs.steps.shape == (1, 16, 3) and outputs.features.shape[0] == 16
            torch.testing.assert_close(outputs.steps[0], outputs.logits)
            return super().__call__(outputs, batch, step)

    plain, ours = trainer(count=48), trainer(count=48, objective=Watching())
    for each in (plain, ours):
        each.advance()
    assert torch.equal(plain.model.head.weight, ours.model.head.weight)


def test_a_column_that_data_lack_is_refused_before_any_work(trainer):
    class Grouped(CrossEntropy):
        columns = ("writer",)

    with pytest.raises(UserError, match="--dataset must be one with a column 'writer'; got columns: "):
        trainer(objective=Grouped())


@pytest.mark.usefixtures("with_plugins")
def test_the_state_and_the_column_of_an_objective(plain_options):
    from dataclasses import replace

    from remembering.objective import Worst
    from remembering.options import WorstOptions

    from engram.backbone.contract import ObjectiveSetting
    from engram.backbone.nets.making import build

    data = split(("a", "b", "b", "c") * 8)

    def made():
        torch.manual_seed(0)
        model = build("mlp", {}, (1, 2, 2), 3, torch.zeros(1), torch.ones(1))
        setting = ObjectiveSetting(data=data, outputs=3, label_smoothing=0.0, device="cpu")
        return Trainer(model, data, replace(plain_options, ema=0.0), Machine("cpu"), Worst(WorstOptions(), setting))

    whole, first, second = made(), made(), made()
    while not whole.done:
        whole.advance()
    first.advance(0)
    second.load_state_dict(first.state_dict())
    while not second.done:
        second.advance()
    assert torch.equal(whole.objective.weights, second.objective.weights)
    assert torch.equal(whole.model.head.weight, second.model.head.weight)
    assert whole.objective.weights.sum().item() == pytest.approx(1.0) and len(whole.objective.weights) == 3


def test_uniform_order_is_a_function_of_seed_and_epoch():
    data = split(torch.zeros(20, dtype=torch.long))
    expected = torch.randperm(20, generator=generator(3, "order", 2))
    assert torch.equal(Uniform().order(data, 3, 2), expected)
    assert torch.equal(Uniform(shuffled=False).order(data, 3, 2), torch.arange(20))


@pytest.mark.parametrize("groups", [("a",) * 21 + ("b",) * 6 + ("c",) * 3, torch.tensor([7] * 26 + [2] * 2 + [5] * 2)])
def test_balanced_batches_and_their_halves_have_as_many_of_every_group(groups):
    data, sampler = split(groups), Balanced("group")
    names = torch.unique(torch.tensor([ord(g) for g in groups]) if isinstance(groups, tuple) else groups)
    of = torch.tensor([ord(g) for g in groups]) if isinstance(groups, tuple) else groups
    order = sampler.order(data, 0, 1)
    assert len(order) == sampler.rows(data) == 30
    for part in order.split(6):
        for half in part.split(3):
            assert sorted(of[half].tolist()) == names.tolist()
    for name in names:
        shown = order[of[order] == name].bincount(minlength=30)[of == name]
        assert shown.max() - shown.min() <= 1  # none comes again before all of its group have
    assert torch.equal(order, sampler.order(data, 0, 1)) and not torch.equal(order, sampler.order(data, 0, 2))


def test_weighted_images_come_as_often_as_their_weights_say():
    data = split(torch.zeros(4000, dtype=torch.long))
    weights = torch.tensor([0.0, 1.0, 3.0, 0.0]).repeat(1000)
    order = Weighted(weights).order(data, 0, 0)
    share = (order % 4 == 2).double().mean().item()
    assert set((order % 4).tolist()) == {1, 2} and share == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / 4000) ** 0.5)


class Guessing(torch.nn.Module):
    """A network that predicts its images from its own features, and normalises batches."""

    in_shape, feature_dim, stage_channels, steps, readout = (1, 2, 2), 4, (4,), 1, "mean"

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
        self.guess = torch.nn.Linear(4, 4)

    def forward(self, x):
        return self.body(x)

    def prediction_errors(self, x):
        with torch.no_grad():
            seen = self.body(x)
        return (self.guess(seen) - x.flatten(1)).square().mean()[None]

    def predictors(self):
        return self.guess


class Reconstructing(Objective):
    wants = ("predictions",)

    def __call__(self, outputs, batch, step):
        return outputs.predictions.sum()

    def trained(self, model):
        return need(model.backbone, Predicting, "this test").predictors()


def test_what_an_objective_does_not_train_stays_as_it_is(plain_options):
    """Weights, statistics of batches, the head and the mode of what is frozen."""
    model = Classifier(Guessing(), torch.nn.Linear(4, 3), torch.zeros(1), torch.ones(1))
    images = torch.randint(256, (24, 1, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data, before = MemorySplit(images, torch.arange(24) % 3), copied(model).state_dict()
    training = Trainer(model, data, plain_options, Machine("cpu"), Reconstructing())
    losses = [training.advance()["train/loss"] for _ in range(2)]
    assert model.backbone.guess.training and not model.backbone.body.training
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"backbone.guess.weight", "backbone.guess.bias"}
    assert losses[1] < losses[0]


def test_a_network_that_predicts_nothing_is_refused_before_any_work(trainer):
    with pytest.raises(UserError, match="a network for this test must be Predicting"):
        trainer(objective=Reconstructing())


def several(classes, labels=None):
    rows = batch(torch.tensor([0, 1, 2]) if labels is None else labels)
    rows.columns["present"] = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)[:, :classes]
    return rows


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_what_is_present_is_the_mean_of_binary_cross_entropies(smoothing):
    logits, rows = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), several(4)
    target = (1 - smoothing) * rows.columns["present"].double() + smoothing / 2
    p = 1 / (1 + torch.exp(-logits.double()))
    want = -(target * p.log() + (1 - target) * (1 - p).log()).mean(1)
    torch.testing.assert_close(Present(smoothing)(Outputs(logits), rows, 0).double(), want.mean())
    torch.testing.assert_close(rows.losses.double(), want)
    offered = torch.tensor([True, False, True, False])
    Present()(Outputs(logits.masked_fill(~offered, -1e30), offered=offered), rows, 0)
    fewer = several(4)
    fewer.columns["present"] = fewer.columns["present"][:, offered]
    Present()(Outputs(logits[:, offered]), fewer, 0)
    torch.testing.assert_close(rows.losses, fewer.losses)


@pytest.mark.parametrize("discount", [1.0, 0.5])
def test_what_is_present_at_every_step(discount):
    steps, rows = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(0)), several(4)
    each = torch.stack([Present()(Outputs(step), several(4), 0) for step in steps])
    weights = torch.tensor([discount**2, discount, 1.0])
    loss = EveryStep(Present(), discount=discount)(Outputs(steps[-1], steps), rows, 0)
    torch.testing.assert_close(loss, (weights * each).sum() / weights.sum())


def test_what_is_present_needs_an_output_for_every_class_by_its_own_number():
    data = MemorySplit(
        torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.arange(3), {"present": torch.eye(3, dtype=torch.bool)}
    )
    setting = ObjectiveSetting(data=data, outputs=2, label_smoothing=0.1, device="cpu")
    with pytest.raises(UserError, match="as many as the classes of the column 'present', 3; got 2"):
        present(None, setting)
    assert present(None, replace(setting, outputs=3)).label_smoothing == 0.1
    assert "present" in seen(data, torch.arange(3)).columns
    assert "present" not in seen(data, torch.tensor([1, 0, 2])).columns  # it would speak of other classes
    assert "present" not in View(data, torch.tensor([0, 0, 1]), None).columns
