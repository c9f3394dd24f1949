import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from backbone.nets.blocks import StaticBackbone
from backbone.nets.folding import trace
from snn.balancing import RunningPercentile, balance, relu_names


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 4),
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=6),
    percentile=st.one_of(st.floats(0.1, 100), st.sampled_from([50.0, 99.9, 100.0])),
)
@settings(deadline=None)
def test_percentile_of_a_stream_is_numpys(seed, rows, sizes, percentile):
    parts = [torch.randn(rows, n, generator=torch.Generator().manual_seed(seed + i)) for i, n in enumerate(sizes)]
    running = RunningPercentile(percentile, sum(sizes))
    for part in parts:
        running.add(part)
    everything = torch.cat(parts, 1).double().numpy()
    np.testing.assert_allclose(running.value(), np.percentile(everything, percentile, axis=1), rtol=1e-5, atol=1e-6)
    assert torch.equal(running.largest(), torch.cat(parts, 1).amax(1))


def test_memory_holds_only_what_lies_above_the_percentile():
    running = RunningPercentile(99.0, 10_000)
    for part in torch.rand(2, 10_000).split(500, 1):
        running.add(part)
    assert running.top is not None
    assert running.top.shape == (2, 101)


@pytest.fixture
def two_relus():
    stages = [nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU())]
    return trace(StaticBackbone((1, 6, 6), stages, nn.Sequential(nn.Flatten(), nn.Linear(48, 4), nn.ReLU()), "full"))


@pytest.mark.parametrize("per", ["channel", "layer"])
@torch.no_grad()
def test_thresholds_are_percentiles_of_the_relu_outputs(two_relus, per):
    images = torch.randn(40, 1, 6, 6)
    found = balance(two_relus, relu_names(two_relus), images.split(7), 40, 99.0, per)
    first = two_relus.get_submodule("body.0.0")(images).relu()
    rows = first.transpose(0, 1).flatten(1) if per == "channel" else first.reshape(1, -1)
    expected = np.percentile(rows.double().numpy(), 99.0, axis=1)
    np.testing.assert_allclose(found["body.0.1"].threshold, expected, rtol=1e-5)
    assert found["tail.2"].threshold.shape == ((4,) if per == "channel" else (1,))


@torch.no_grad()
def test_silent_and_rare_channels(two_relus):
    conv = two_relus.get_submodule("body.0.0")
    conv.bias.copy_(torch.tensor([-1e3, 0.0, 0.0]))  # channel 0 never fires
    conv.weight[1].zero_()
    conv.weight[1, 0, 0, 0] = 1.0  # channel 1 fires only where a pixel is positive
    conv.weight[2].fill_(-1.0)  # channel 2 fires everywhere
    images = -torch.rand(50, 1, 6, 6)
    images[3, 0, 0, 0] = 0.75  # ... which is one place of 800
    found = balance(two_relus, relu_names(two_relus), images.split(25), 50, 99.0, "channel")["body.0.1"]
    assert found.silent.tolist() == [True, False, False]
    assert found.threshold[1] == 0.75  # its 99th percentile is zero; its maximum is not
    assert found.threshold[0] == found.threshold[1:].max() > 0.75
    assert bool((found.threshold > 0).all())


@torch.no_grad()
def test_a_layer_that_never_fires_still_has_positive_thresholds(two_relus):
    two_relus.get_submodule("tail.1").bias.fill_(-1e6)
    found = balance(two_relus, relu_names(two_relus), [torch.rand(4, 1, 6, 6)], 4, 99.9, "channel")["tail.2"]
    assert found.silent.all()
    assert bool((found.threshold > 0).all())
