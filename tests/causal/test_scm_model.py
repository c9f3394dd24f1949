"""Structural causal models: formulas of adjustment against truncated factorisation, and what is drawn from them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from engram.backbone.data.lots import lots
from engram.causal.scm.graphs import CONTEXTS, SHAPES, model_of
from engram.causal.scm.model import Model, Variable, total_variation
from engram.causal.scm.options import ShapesScmOptions


def variable(random, name, size, *parents):
    """One with random probabilities, none of them 0."""
    shape = [len(parent.values) for parent in parents]
    table = random.dirichlet(np.ones(size), shape) if shape else random.dirichlet(np.ones(size))
    return Variable(name, tuple(map(str, range(size))), table, tuple(parent.name for parent in parents))


def brute(model, of, do, given=()):
    """P(of | do, given) by walking through every combination of values."""
    sums = np.zeros(len(model.variables[of].values))
    for values in product(*(range(len(each.values)) for each in model.variables.values())):
        held = dict(zip(model.names, values, strict=True))
        if any(held[name] != value for name, value in {**do, **dict(given)}.items()):
            continue
        chance = 1.0
        for name, each in model.variables.items():
            if name not in do:
                chance *= each.table[tuple(held[parent] for parent in each.parents)][held[name]]
        sums[held[of]] += chance
    return sums / sums.sum()


@pytest.mark.parametrize("seed", range(8))
def test_adjustments_against_truncated_factorisation(seed):
    random = np.random.default_rng(seed)
    sizes = random.integers(2, 5, 4)
    z = variable(random, "z", sizes[0])
    x = variable(random, "x", sizes[1], z)
    y = variable(random, "y", sizes[2], x, z)
    model = Model((z, x, y))
    r = variable(random, "r", sizes[3], x)
    front = Model((z, x, r, variable(random, "y", sizes[2], r, z)))
    for value in range(sizes[1]):
        do = {"x": value}
        np.testing.assert_allclose(model.interventional("y", do), brute(model, "y", do), atol=1e-12)
        np.testing.assert_allclose(model.backdoor("y", do, "z"), brute(model, "y", do), atol=1e-12)
        np.testing.assert_allclose(front.interventional("y", do), brute(front, "y", do), atol=1e-12)
        np.testing.assert_allclose(front.frontdoor("y", do, "r"), brute(front, "y", do), atol=1e-12)
        np.testing.assert_allclose(model.observational("y", do), brute(model, "y", {}, do.items()), atol=1e-12)
        np.testing.assert_allclose(model.interventional("z", do), z.table, atol=1e-12)  # no effect of x
    given = {"z": 0}
    np.testing.assert_allclose(
        front.interventional("y", {"x": 1}, given), brute(front, "y", {"x": 1}, given.items()), atol=1e-12
    )


def test_confounding_is_what_the_option_says():
    for options in (ShapesScmOptions(), ShapesScmOptions(graph="frontdoor")):
        model = model_of(options)
        for shape in range(len(SHAPES)):
            seen, done = model.observational("label", {"shape": shape}), model.interventional("label", {"shape": shape})
            assert total_variation(seen, done) > 0.2
    free = model_of(ShapesScmOptions(confounding=0))
    for shape in range(len(SHAPES)):
        seen, done = free.observational("label", {"shape": shape}), free.interventional("label", {"shape": shape})
        np.testing.assert_allclose(seen, done, atol=1e-12)


def test_the_context_that_is_not_told_cannot_be_adjusted_for_by_the_background():
    model = model_of(ShapesScmOptions(graph="frontdoor"))
    truth = model.interventional("label", {"shape": 0})
    assert total_variation(model.backdoor("label", {"shape": 0}, "background"), truth) > 0.1
    assert total_variation(model.frontdoor("label", {"shape": 0}, "mediator"), truth) < 1e-12


def test_samples_follow_the_tables_and_what_is_set():
    model, count = model_of(ShapesScmOptions(graph="frontdoor")), 20_000
    keys = lots(np.zeros(1, np.uint64), count)[0]
    found = model.sample(keys)
    joint = np.zeros([len(each.values) for each in model.variables.values()])
    np.add.at(joint, tuple(found[name] for name in model.names), 1 / count)
    expected = model.joint()
    assert np.abs(joint - expected).max() < 5 * np.sqrt(expected.max() / count)
    fewer = model.sample(keys[:10])
    assert all((fewer[name] == found[name][:10]).all() for name in model.names)
    ones = np.ones(count, np.int64)
    changed = model.sample(keys, {"shape": ones})
    assert (changed["context"] == found["context"]).all() and (changed["shape"] == 1).all()
    shares = np.bincount(changed["label"], minlength=len(CONTEXTS)) / count
    np.testing.assert_allclose(shares, model.interventional("label", {"shape": 1}), atol=0.02)


def test_what_is_no_model_is_refused():
    coin = Variable("coin", ("no", "yes"), np.array([0.5, 0.5]))
    with pytest.raises(ValueError, match="come before it"):
        Model((Variable("x", ("a", "b"), np.full((2, 2), 0.5), ("coin",)), coin))
    with pytest.raises(ValueError, match="of shape"):
        Model((coin, Variable("x", ("a", "b"), np.full((3, 2), 0.5), ("coin",))))
    with pytest.raises(ValueError, match="sum to 1"):
        Model((Variable("x", ("a", "b"), np.array([0.5, 0.6])),))
