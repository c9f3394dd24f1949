"""Last layers fitted anew: by scikit-learn and gradient descent by hand, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from engram.backbone.contract import ObjectiveSetting
from engram.backbone.data.sets import MemorySplit
from engram.backbone.errors import UserError
from engram.backbone.hardware import Machine
from engram.backbone.measures.features import features_of
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.making import build
from engram.backbone.objectives.columns import columns_of
from engram.backbone.seeding import derive
from engram.backbone.training.loop import Trainer
from engram.backbone.training.options import TrainingOptions
from engram.causal.objectives.afr import AFR, nearest_layer, weights_of
from engram.causal.objectives.dfr import DFR, balanced, l1_logistic, l1_penalty
from engram.causal.objectives.last_layer import Known, Layer
from engram.causal.objectives.reference_options import AFROptions, DFROptions

SHAPE, FEATURES = (1, 2, 3), 5


def grouped(count, seed, classes=2, names=("land", "water")):
    """Images whose class and background both show; the background goes with the class in four of five."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    there = torch.where(torch.rand(count, generator=random) < 0.8, labels % 2, 1 - labels % 2)
    images = torch.randint(128, (count, *SHAPE), generator=random)
    images[:, 0, 0, 0] += 20 * labels
    images[:, 0, 1, 1] += 90 * there
    groups = tuple(f"{label} on {names[place]}" for label, place in zip(labels.tolist(), there.tolist(), strict=True))
    return MemorySplit(images.to(torch.uint8), labels, {"group": groups})


def network(seed, classes=2):
    torch.manual_seed(seed)
    return build("mlp", {"units": FEATURES, "depth": 1}, SHAPE, classes, torch.zeros(1), torch.ones(1) / 2)


def setting(classes=2, **changed):
    given = {"data": grouped(240, 0, classes), "validation": grouped(160, 1, classes), "reference": network(1, classes)}
    return ObjectiveSetting(outputs=classes, label_smoothing=0.0, device="cpu", **{**given, **changed})


def fitted(kind, options, known, **more):
    """The trainer of a network whose last layer has been fitted."""
    model, training = network(0, known.outputs), TrainingOptions(epochs=2, **more)
    trainer = Trainer(model, known.data, training, Machine("cpu", "fp32"), kind(options, known))
    trainer.advance()
    assert trainer.done
    return trainer


@pytest.fixture(scope="module")
def dfr():
    known = setting()
    return known, fitted(DFR, DFROptions(refits=3), known, seed=5)


def test_dfr_is_the_mean_of_fits_by_scikit_learn_folded_into_the_head(dfr):
    known, trainer = dfr
    (chosen,) = (row["C"] for row in trainer.objective.tables()["last_layer"] if row["chosen"])
    scaler = StandardScaler().fit(features_of(known.reference, known.data, "cpu").double())
    features = features_of(known.reference, known.validation, "cpu").double()
    groups = columns_of(known.validation, ["group"], "cpu")["group"]
    held = Known(features, known.validation.labels, groups)
    coefficients, l1 = [], l1_penalty(LogisticRegression)
    for number in range(3):
        seed = derive(5, "dfr", number)
        rows = balanced(held, seed)
        fit = LogisticRegression(solver="liblinear", C=chosen, random_state=seed % 2**32, max_iter=1000, **l1)
        fit.fit(scaler.transform(features[rows]), held.labels[rows])
        coefficients.append((fit.coef_[0], fit.intercept_[0]))
    weight, bias = (np.mean(each, 0) for each in zip(*coefficients, strict=True))
    images, _, _ = next(known.data.batches(torch.arange(100), 100, "cpu"))
    with torch.no_grad():
        logits = trainer.model.eval()(images)
        standardised = scaler.transform(features_of(known.reference, known.data, "cpu").double()[:100])
    odds = torch.from_numpy(standardised @ weight + bias)
    torch.testing.assert_close((logits[:, 1] - logits[:, 0]).double(), odds, atol=1e-4, rtol=1e-4)


def test_dfr_leaves_everything_but_the_head_of_the_reference(dfr):
    known, trainer = dfr
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, known.reference.state_dict()[name]) != name.startswith("head.")


def test_dfr_chooses_by_the_worst_group_of_images_kept_back(dfr):
    rows = dfr[1].objective.tables()["last_layer"]
    assert [row["C"] for row in rows] == [None, 1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01]
    (chosen,) = (row for row in rows if row["chosen"])
    assert chosen["worst group"] == max(row["worst group"] for row in rows[1:]) > rows[0]["worst group"]


def test_a_weight_average_is_that_of_the_fitted_network():
    trainer = fitted(DFR, DFROptions(on="train", refits=1), setting(), ema=0.9)
    assert torch.equal(trainer.scored_model.head.weight, trainer.model.head.weight)


def test_balanced_images_are_as_many_of_every_class_and_group():
    labels, groups = torch.tensor([0] * 30 + [1] * 10), torch.tensor([0] * 20 + [1] * 10 + [0] * 3 + [1] * 7)
    rows = balanced(Known(torch.zeros(40, 1), labels, groups), 3)
    assert (2 * labels + groups)[rows].bincount().tolist() == [3, 3, 3, 3] and len(rows.unique()) == 12
    assert torch.equal(rows, balanced(Known(torch.zeros(40, 1), labels, groups), 3))


def test_several_classes_are_each_fitted_against_the_rest():
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    features = torch.randn(90, 4, generator=random, dtype=torch.double) + labels[:, None] * torch.eye(4)[labels]
    layer = l1_logistic(features, labels, 3, 0.5, 0)
    l1 = l1_penalty(LogisticRegression)
    theirs = OneVsRestClassifier(LogisticRegression(solver="liblinear", C=0.5, random_state=0, max_iter=1000, **l1))
    theirs.fit(features, labels)
    np.testing.assert_allclose(layer(features), theirs.decision_function(features), atol=1e-6)


def test_afr_weights_are_those_of_the_paper():
    known, layer = (
        Known(torch.randn(6, 3).double(), torch.tensor([0, 1, 0, 0, 1, 0]), None),
        Layer.of(torch.nn.Linear(3, 2)),
    )
    p = F.softmax(layer(known.features), 1)
    wanted = torch.tensor([float((-4.0 * p[i, y]).exp()) / (4, 2)[y] for i, y in enumerate(known.labels)]).double()
    torch.testing.assert_close(weights_of(layer, known, 4.0), wanted / wanted.sum(), rtol=1e-6, atol=0)
    even = weights_of(layer, known, 0.0)
    torch.testing.assert_close(even[known.labels == 0].sum(), torch.tensor(0.5).double())


@pytest.mark.parametrize("l2", [0.1, 0.4])
def test_afr_finds_the_minimum(l2):
    """No gradient is left, and long gradient descent comes to the same."""
    random = torch.Generator().manual_seed(0)
    features, labels = torch.randn(50, 3, generator=random).double(), torch.arange(50) % 3
    known, start = Known(features, labels, None), Layer.of(torch.nn.Linear(3, 3))
    weights = torch.rand(50, generator=random).double()
    weights /= weights.sum()
    found = nearest_layer(known, weights, l2, start)

    def slopes(weight, bias):
        weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
        loss = weights @ F.cross_entropy(features @ weight.T + bias, labels, reduction="none")
        loss = loss + l2 * ((weight - start.weight).square().sum() + (bias - start.bias).square().sum())
        return torch.autograd.grad(loss, (weight, bias))

    assert all(float(slope.abs().max()) < 1e-6 for slope in slopes(found.weight, found.bias))
    weight, bias = start.weight, start.bias
    for _ in range(150):
        down = slopes(weight, bias)
        weight, bias = weight - down[0], bias - down[1]
    torch.testing.assert_close(found.weight, weight, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.bias, bias, atol=1e-5, rtol=0)


def test_afr_stays_with_the_reference_where_that_counts_alone():
    known = setting()
    trainer = fitted(AFR, AFROptions(gamma=4.0, l2=1e6), known)
    torch.testing.assert_close(trainer.model.head.weight, known.reference.head.weight, atol=1e-4, rtol=0)
    assert trainer.objective.tables() == {"last_layer": []}


def test_afr_chooses_by_the_worst_group():
    trainer = fitted(AFR, AFROptions(gamma=4.0), setting())
    first, *rows = trainer.objective.tables()["last_layer"]
    (chosen,) = (row for row in rows if row["chosen"])
    assert chosen["worst group"] == max(row["worst group"] for row in rows)
    assert first["gamma"] is None and {row["gamma"] for row in rows} == {4.0} and len(rows) == 5


def test_afr_needs_no_groups_where_nothing_is_to_be_chosen():
    bare = setting()
    bare = replace(bare, validation=MemorySplit(bare.validation.images, bare.validation.labels))
    fitted(AFR, AFROptions(gamma=4.0, l2=0.1), bare)
    with pytest.raises(UserError, match="--dataset must be one with a column 'group'"):
        fitted(AFR, AFROptions(gamma=4.0), bare)


@pytest.mark.parametrize("kind, options", [(DFR, DFROptions()), (AFR, AFROptions())])
def test_what_a_last_layer_cannot_be_fitted_with_is_named(kind, options):
    whole = setting()
    with pytest.raises(UserError, match=r"--validation must be above 0 for .fr"):
        kind(options, replace(whole, validation=None))
    one = MemorySplit(whole.validation.images, whole.validation.labels, {"group": ("all",) * len(whole.validation)})
    with pytest.raises(UserError, match=r"the column 'group' for .fr must be of at least two groups; got one"):
        fitted(kind, options, replace(whole, validation=one))
    with pytest.raises(UserError, match=r"the network of --reference .* got another one: "):
        fitted(kind, options, replace(whole, reference=build("mlp", {"units": 7}, SHAPE, 2, *torch.ones(2, 1))))
    few = whole.validation.select((whole.validation.labels == 0).nonzero().flatten())
    if kind is DFR:
        with pytest.raises(UserError, match="must be of all 2 classes for dfr; got of 1"):
            fitted(kind, options, replace(whole, validation=few))


class FedBack(torch.nn.Module):
    """A network that may look at the head behind it."""

    in_shape, feature_dim, stage_channels, steps, readout = SHAPE, 6, (1,), 1, "mean"

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    def introduce(self, head):
        self.__dict__["head"] = head

    def forward(self, x):
        flat = x.flatten(1)
        return flat + self.head(flat) @ self.head.weight if self.looks else flat


def test_features_may_not_depend_on_the_head_behind_them():
    def net(looks):
        torch.manual_seed(0)
        return Classifier(FedBack(looks), torch.nn.Linear(6, 2), torch.zeros(1), torch.ones(1) / 2)

    for looks in (False, True):
        known = setting(reference=net(looks))
        objective = AFR(AFROptions(gamma=1.0, l2=0.1), known)
        trainer = Trainer(net(looks), known.data, TrainingOptions(epochs=1), Machine("cpu", "fp32"), objective)
        if looks:
            with pytest.raises(UserError, match="the network for afr must be one whose features do not depend on the"):
                trainer.advance()
            assert torch.equal(trainer.model.head.weight, known.reference.head.weight)
        else:
            trainer.advance()
            assert trainer.done


@pytest.mark.parametrize(("kind", "options"), [(DFR, DFROptions(refits=2)), (AFR, AFROptions(gamma=4.0))])
def test_a_group_of_one_image_is_said_to_have_no_say_in_the_choice(kind, options):
    held = grouped(160, 1)
    lone = (*held.columns["group"][:-1], "1 in fog")
    trainer = fitted(kind, options, setting(validation=MemorySplit(held.images, held.labels, {"group": lone})))
    rows = {
        row["group"]: (row["fitted on"], row["chosen by"]) for row in trainer.objective.tables()["last_layer_groups"]
    }
    assert rows.pop("1 in fog") == (1, 0)
    assert all(by > 0 for _, by in rows.values()) and sum(by for _, by in rows.values()) in (79, 80)
    assert sum(on for on, _ in rows.values()) + 1 == (160 if kind is DFR else 160 - sum(by for _, by in rows.values()))
    again = kind(options, setting())
    again.load_state_dict(trainer.objective.state_dict())
    assert again.tables() == trainer.objective.tables()


def test_a_choice_by_fewer_than_two_groups_is_refused():
    held = grouped(160, 1)
    lone = ("all",) * 159 + ("fog",)
    with pytest.raises(UserError, match="--validation must be such that afr can keep images of two groups back"):
        fitted(AFR, AFROptions(), setting(validation=MemorySplit(held.images, held.labels, {"group": lone})))
