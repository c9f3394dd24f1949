"""The data set ``shapes-scm``: what its pictures and columns say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engram.backbone.errors import UserError
from engram.causal.scm.drawing import draw
from engram.causal.scm.graphs import SHAPES, model_of
from engram.causal.scm.options import ShapesScmOptions
from engram.causal.scm.source import open_shapes_scm


def opened(**options):
    chosen = ShapesScmOptions(**{"images": 400, "size": 12, **options})
    return open_shapes_scm(None, chosen, root=None, download=False, budget_bytes=2**30)


def test_columns_of_both_graphs():
    known, hidden = opened().train, opened(graph="frontdoor").train
    told = {"original_index", "shape", "background", "foreground"}
    assert set(known.columns) == told | {"context", "environment", "group"}
    assert set(hidden.columns) == told | {"mediator"}
    assert known.columns["environment"] == known.columns["context"]
    names = [
        f"{SHAPES[label]}, {context}" for label, context in zip(known.labels, known.columns["context"], strict=True)
    ]
    assert list(known.columns["group"]) == names


def test_labels_follow_the_model():
    part = opened(images=4000, background=0.0).train
    shapes, contexts = np.array(part.columns["shape"]), np.array(part.columns["context"])
    model = model_of(ShapesScmOptions())
    for number, shape in enumerate(SHAPES):
        chosen = shapes == shape
        found = np.bincount(part.labels.numpy()[chosen], minlength=3) / chosen.sum()
        np.testing.assert_allclose(found, model.observational("label", {"shape": number}), atol=0.06)
    backgrounds = np.array(part.columns["background"])
    apart = [(backgrounds[contexts == context] == context).mean() for context in set(contexts)]
    np.testing.assert_allclose(apart, 1 / 3, atol=0.06)  # nothing of the context is in the picture
    told = opened(background=1.0).train
    assert told.columns["background"] == told.columns["context"]


def test_the_foreground_is_the_shape_whatever_is_behind_it():
    keys = np.arange(60, dtype=np.uint64)
    shapes = np.arange(60) % 3
    plain, checks = (draw(shapes, np.full(60, which), keys, 16) for which in (0, 2))
    assert torch.equal(plain.foreground, checks.foreground)
    inside = plain.foreground.unsqueeze(1)
    assert (plain.images[inside].float().mean() - plain.images[~inside].float().mean()) > 60
    areas = plain.foreground.float().mean((1, 2))
    assert areas.min() > 0.08 and areas.max() < 0.6
    again = draw(shapes[:7], np.zeros(7, np.int64), keys[:7], 16)
    assert torch.equal(again.images, plain.images[:7])


def test_pictures_of_a_shape_differ_from_those_of_another_with_the_same_lots():
    keys = np.zeros(3, np.uint64)
    masks = draw(np.arange(3), np.zeros(3, np.int64), keys, 16).foreground
    assert all((masks[one] ^ masks[two]).sum() > 8 for one, two in ((0, 1), (0, 2), (1, 2)))


def test_options_make_other_sets_and_too_much_is_refused():
    prints = {opened(**each).fingerprint for each in ({}, {"seed": 1}, {"graph": "frontdoor"}, {"confounding": 0.0})}
    assert len(prints) == 4
    with pytest.raises(UserError, match=r"at most 0\.0 GiB"):
        open_shapes_scm(None, None, root=None, download=False, budget_bytes=1000)
