"""Concept bottlenecks: what trains what, corrections, leakage, and the data whose concepts are known."""

from __future__ import annotations

from itertools import product
from math import log
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engram.backbone.contract import Batch, ObjectiveSetting
from engram.backbone.data.columns import CONCEPTS
from engram.backbone.data.sets import Data, MemorySplit
from engram.backbone.errors import UserError
from engram.backbone.nets.making import build
from engram.backbone.options import Checker, in_full
from engram.backbone.registry import Registry
from engram.causal.concepts.columns import with_concepts
from engram.causal.concepts.configs import ConceptsConfig
from engram.causal.concepts.correcting import by_uncertainty, corrected, curve, ends
from engram.causal.concepts.experiment import Told, what_leaks
from engram.causal.concepts.head import ConceptBottleneck
from engram.causal.concepts.leakage import (
    by_numbers,
    by_pattern,
    information,
    of_other_concepts,
    of_the_class,
)
from engram.causal.concepts.options import BottleneckOptions, ConceptShapesOptions, ConceptsOptions
from engram.causal.concepts.shapes import CLASSES, open_concept_shapes
from engram.causal.logistic import regression
from engram.causal.objectives.bottleneck import concepts

SHAPE, K, C = (1, 8, 8), 4, 3


def model(**options):
    head = in_full(Registry.discover(), "heads", "causal.concept-bottleneck", {"width": C, **options})
    torch.manual_seed(0)
    return build("mlp", {"units": 8, "depth": 1}, SHAPE, K, torch.zeros(1), torch.ones(1), head)


def batch_of(count=12):
    random = torch.Generator().manual_seed(1)
    images = torch.rand(count, *SHAPE, generator=random)
    present = torch.rand(count, C, generator=random) < 0.5
    labels = torch.randint(K, (count,), generator=random)
    split = MemorySplit((images * 255).to(torch.uint8), labels, {CONCEPTS: present})
    setting = ObjectiveSetting(data=split, outputs=K, label_smoothing=0.0, device="cpu")
    return setting, Batch(images, images, labels, torch.arange(count), {CONCEPTS: present.long()})


@pytest.mark.parametrize("mode", ["joint", "sequential", "independent"])
def test_what_trains_what(mode):
    setting, batch = batch_of()
    net = model()
    objective = concepts(ConceptsOptions(mode=mode, weight=0.5), setting)
    objective.begin(SimpleNamespace(model=net))
    loss = objective(net.outputs(batch.images, objective.wants), batch, 0)
    present, head = batch.columns[CONCEPTS], net.head
    logits = head.to_concepts(net.backbone(batch.images))
    of_concepts = F.binary_cross_entropy_with_logits(logits, present.float(), reduction="none").sum(1).mean()
    given = present.float() if mode == "independent" else logits.sigmoid()
    of_classes = F.cross_entropy(head.to_classes(given if mode == "joint" else given.detach()), batch.labels)
    assert torch.allclose(loss, of_classes + 0.5 * of_concepts)
    assert torch.allclose(batch.losses.mean(), loss)
    inside = [*net.backbone.parameters(), *head.to_concepts.parameters()]
    found = torch.autograd.grad(loss, inside, retain_graph=True)
    alone = torch.autograd.grad(0.5 * of_concepts, inside)
    same = all(torch.allclose(a, b, atol=1e-7) for a, b in zip(found, alone, strict=True))
    assert same == (mode != "joint")


def test_what_it_refuses():
    setting, _ = batch_of()
    objective = concepts(ConceptsOptions(), setting)
    with pytest.raises(UserError, match="must be Conceptual; got Linear"):
        objective.begin(SimpleNamespace(model=build("mlp", {}, SHAPE, K, torch.zeros(1), torch.ones(1))))
    with pytest.raises(UserError, match=r"must be as many as the column 'concepts' has, 3; got 5\. Use --head.width 3"):
        objective.begin(SimpleNamespace(model=model(width=5)))
    with pytest.raises(UserError, match="must be probabilities; got logits"):
        concepts(ConceptsOptions(mode="independent"), setting).begin(SimpleNamespace(model=model(given="logits")))
    names = MemorySplit(torch.zeros(2, *SHAPE, dtype=torch.uint8), torch.tensor([0, 1]), {CONCEPTS: ("a", "b")})
    with pytest.raises(UserError, match=r"must be \[N, C\] of which concepts are there"):
        concepts(ConceptsOptions(), ObjectiveSetting(data=names, outputs=2, label_smoothing=0.0, device="cpu"))


def test_corrections_against_loops():
    random = torch.Generator().manual_seed(2)
    logits, train = torch.randn(9, C, generator=random), torch.randn(200, C, generator=random)
    present, labels = torch.rand(9, C, generator=random) < 0.5, torch.randint(K, (9,), generator=random)
    low, high = ends(train)
    assert np.allclose(low, np.quantile(train.numpy(), 0.05, 0)) and np.allclose(
        high, np.quantile(train.numpy(), 0.95, 0)
    )
    torch.manual_seed(0)
    head, orders = ConceptBottleneck(2, K, BottleneckOptions(width=C)), by_uncertainty(logits)
    found = curve(head, logits, present, labels, (low, high), [orders])
    for count in range(C + 1):
        right = 0
        for row in range(9):
            mended = logits[row].clone()
            for k in sorted(range(C), key=lambda k, row=row: abs(float(logits[row, k])))[:count]:
                mended[k] = (high if present[row, k] else low)[k]
            right += int(head.to_classes(mended.sigmoid()).argmax() == labels[row])
        assert found[count] == pytest.approx(right / 9)
    everything = corrected(logits, present, torch.ones_like(present), (low, high))
    assert torch.equal(everything > (low + high) / 2, present)
    fixed = curve(head, logits, present, labels, (low, high), [torch.tensor([2, 0, 1]), torch.tensor([1, 2, 0])])
    assert fixed[0] == found[0] and fixed[-1] == pytest.approx(found[-1])


def test_information_against_its_definition():
    table = np.array([[0.3, 0.1, 0.05], [0.05, 0.2, 0.3]])
    counts = (table * 20_000).astype(int)
    cells = [cell for cell in product(range(2), range(3)) for _ in range(counts[cell])]
    some, others = torch.tensor(cells).T
    rows, columns = table.sum(1), table.sum(0)
    exact = sum(table[i, j] * log(table[i, j] / rows[i] / columns[j]) for i, j in product(range(2), range(3)))
    assert information(some, others) == pytest.approx(exact, abs=1e-3)
    draws = [information(*torch.randint(8, (2, 400), generator=torch.Generator().manual_seed(s))) for s in range(40)]
    assert abs(np.mean(draws)) < 0.01  # uncorrected counts would say 49 / 800


def test_leaks_are_found_where_they_were_planted():
    random = torch.Generator().manual_seed(3)
    bits = torch.rand(2000, 3, generator=random) < 0.5
    labels = bits.long() @ torch.tensor([4, 2, 1])
    present, sign = bits[:, :2], bits[:, :2].float() * 2 - 1
    clean = sign * (1 + torch.rand(2000, 2, generator=random))
    told = clean.clone()
    told[:, 0] = sign[:, 0] * torch.where(bits[:, 2], 3.0, 1.0)  # how sure it is says the third bit
    for logits, leaks in ((clean, 0.0), (told, log(2) / log(8))):
        found = of_the_class(logits, present, labels)
        assert found[0] == pytest.approx(leaks, abs=0.03) and abs(found[1]) < 0.03
        assert all(abs(each) < 0.03 for each in of_other_concepts(logits, present))
    of_other = told.clone()
    of_other[:, 0] = sign[:, 0] * torch.where(bits[:, 1], 3.0, 1.0)
    assert of_other_concepts(of_other, present) == pytest.approx([1.0, 0.0], abs=0.03)
    halves = [Told(told[part], present[part], labels[part]) for part in (slice(0, 1500), slice(1500, 2000))]
    leaked, rows = what_leaks(*halves)
    assert rows[0]["accuracy"] == pytest.approx(0.5, abs=0.05) and leaked > 10
    halves = [Told(clean[part], present[part], labels[part]) for part in (slice(0, 1500), slice(1500, 2000))]
    assert abs(what_leaks(*halves)[0]) < 5


def test_guesses_are_the_best_there_are():
    patterns = torch.tensor([[0, 0], [0, 0], [0, 0], [1, 0], [1, 1]], dtype=torch.bool)
    labels = torch.tensor([2, 2, 1, 0, 1])
    new = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=torch.bool)
    assert by_pattern(patterns, labels, new).tolist() == [2, 0, 1, 1]  # the last one was never seen


def test_the_regression_is_where_its_slope_is_zero():
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(300, 3, generator=random, dtype=torch.float64)
    true = torch.randn(3, 4, generator=random, dtype=torch.float64)
    labels = (rows @ true + torch.randn(300, 4, generator=random)).argmax(1)
    weights = regression(rows, labels, 4, 1e-3, 500).requires_grad_()
    loss = F.cross_entropy(rows @ weights, labels) + 1e-3 * weights.square().sum()
    assert torch.autograd.grad(loss, weights)[0].abs().max() < 1e-6
    assert (by_numbers(rows, labels, rows) == labels).double().mean() > 0.6


def opened(**options):
    return open_concept_shapes(None, ConceptShapesOptions(**options), root=Path(), download=False, budget_bytes=2**30)


def test_shapes_show_their_concepts():
    source = opened(samples=400, noise=0.0)
    train = source.train
    present = train.columns[CONCEPTS]
    assert torch.equal(train.labels, present[:, :4].long() @ torch.tensor([8, 4, 2, 1])) and len(source.classes) == 16
    assert CLASSES[0b1010] == "round small hollow dim" and (train.labels.bincount() == 25).all()
    shown = train.images[:, 0].float() / 255
    covered = (shown - 0.2).abs() > 0.05
    rows = torch.arange(20.0)
    middle = covered.float().sum((1, 2))
    assert torch.equal((covered.float().sum(1) @ rows / middle) < 9.5, present[:, 4])
    assert torch.equal((covered.float().sum(2) @ rows / middle) < 9.5, present[:, 5])
    assert torch.equal(shown.amax((1, 2)) > 0.65, present[:, 3])
    height = covered.any(2).sum(1)
    assert torch.equal(height >= 9, present[:, 1])
    few = open_concept_shapes(
        None, ConceptShapesOptions(samples=400, noise=0.0, known=2), root=None, download=False, budget_bytes=2**30
    )
    assert torch.equal(few.train.columns[CONCEPTS], present[:, :2]) and few.fingerprint != source.fingerprint
    assert torch.equal(few.train.images, train.images)


def test_columns_of_a_users_own():
    images, labels = torch.zeros(4, *SHAPE, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    columns = {"wing": ("0", "1", "1", "0"), "beak": torch.tensor([1, 1, 0, 0]), "colour": ("red", "0", "1", "0")}
    split = MemorySplit(images, labels, columns)
    data = Data("x", split, None, split, ("a", "b"), SHAPE, torch.zeros(1), torch.ones(1), "0" * 64)
    found = with_concepts(data, ("wing", "beak")).test.columns[CONCEPTS]
    assert found.tolist() == [[False, True], [True, True], [True, False], [False, False]]
    with pytest.raises(UserError, match="column 'colour' of --concepts must be 0 or 1 for every image; got red"):
        with_concepts(data, ("colour",))
    with pytest.raises(UserError, match="'tail'; columns: wing, beak, colour"):
        with_concepts(data, ("tail",))
    registry = Registry.discover()
    checker = Checker(registry, lambda name: f"--{name}", "")
    config = ConceptsConfig.resolve(checker.check(ConceptsConfig, {"concepts": "wing, wing"}))
    assert config.head == "causal.concept-bottleneck" and config.named == ("wing", "wing")
    assert "named once each" in config.problems()[0]
