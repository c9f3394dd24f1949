"""Small maps on large ones, against the same with every value repeated."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from engram.feedback.network.paths import Gain, TopDown, spread, together


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("small", "large"), [((2, 3), (4, 9)), ((1, 3), (4, 6)), ((1, 1), (4, 6)), ((4, 6), (4, 6))])
def test_every_cell_of_a_small_map_is_a_block_of_a_large_one(small, large, channels, layout):
    generator = torch.Generator().manual_seed(0)
    like = torch.randn(2, channels, *large, generator=generator).contiguous(memory_format=layout).requires_grad_()
    value = torch.randn(2, channels, *small, generator=generator).contiguous(memory_format=layout).requires_grad_()
    weights = torch.randn(like.shape, generator=generator)
    repeated = value
    for dim in (2, 3):
        repeated = repeated.repeat_interleave(like.shape[dim] // value.shape[dim], dim)
    for combine in (torch.mul, torch.add):
        term, blocks = spread(value, like)
        found, expected = together(combine(blocks, term), like), combine(like, repeated)
        assert torch.equal(found, expected) and found.is_contiguous(memory_format=layout)
        for ours, theirs in zip(
            torch.autograd.grad(found, (value, like), weights),
            torch.autograd.grad(expected, (value, like), weights),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs)


def test_sizes_that_do_not_divide_take_the_nearest_cell():
    value, like = torch.arange(4.0).view(1, 1, 2, 2), torch.zeros(1, 1, 5, 5)
    term, blocks = spread(value, like)
    assert together(blocks + term, like)[0, 0, 0].tolist() == [0, 0, 1, 1, 1]


@torch.no_grad()
def test_a_gain_is_one_plus_the_hyperbolic_tangent():
    torch.manual_seed(0)
    x = torch.randn(3, 8, 2, 2)
    term, gain = TopDown(8, 5), Gain(8, 5)
    assert torch.equal(gain(x), torch.ones(3, 5, 2, 2))
    torch.nn.init.normal_(term.conv.weight)
    torch.nn.init.normal_(term.conv.bias)
    gain.load_state_dict(term.state_dict())
    flat = x.flatten(1)
    normed = ((flat - flat.mean(1, keepdim=True)) / (flat.var(1, correction=0, keepdim=True) + 1e-5).sqrt()).view_as(x)
    torch.testing.assert_close(term(x), F.conv2d(normed, term.conv.weight, term.conv.bias))
    torch.testing.assert_close(gain(x), 1 + term(x).tanh())
