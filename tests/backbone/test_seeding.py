import random

import numpy as np
import torch

from engram.backbone.seeding import derive, generator, seed_everything


def test_seeds_are_the_same_ones_for_ever():
    assert [
        derive(0, "order", 0),
        derive(0, "order", 1),
        derive(7, "layers", 3),
        derive(2**31 - 1, "augment", 10**6),
    ] == [*(1829853113658518448, 2961819992523135983, 8293714720398384117, 4002377099277751280)]


def test_seeds_are_in_range_and_differ_in_every_argument():
    found = {
        derive(seed, purpose, step)
        for seed in range(10)
        for purpose in ("order", "layers", "x/1")
        for step in range(20)
    }
    assert len(found) == 600
    assert all(0 <= seed < 2**63 for seed in found)


def test_generators_start_where_derive_says():
    want = torch.rand(3, generator=torch.Generator().manual_seed(derive(5, "order", 2)))
    assert torch.equal(torch.rand(3, generator=generator(5, "order", 2)), want)


def test_everything_is_seeded():
    def draw():
        seed_everything(11)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw() == draw()
