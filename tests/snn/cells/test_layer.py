"""The layer: explicit state, memory layouts, mistakes, pooling."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from engram.backbone.errors import UserError
from engram.snn.engines.layer import SpikingLayer
from engram.snn.engines.pooling import fold_pooling
from engram.snn.graph.timed import TimeFolded
from engram.snn.neurons.options import NeuronOptions
from engram.snn.neurons.timed import TimedNeurons


@pytest.mark.parametrize("neuron", ["lif", "cuba-lif", "adaptive-lif"])
def test_a_run_in_two_parts_is_the_whole_run(neuron):
    layer = SpikingLayer(NeuronOptions(neuron=neuron, refractory=1))
    drive = torch.randn(9, 2, 3, 4, 4)
    whole, end = layer.scan(drive)
    first, between = layer.scan(drive[:4])
    second, last = layer.scan(drive[4:], between)
    assert torch.equal(torch.cat((first, second)), whole)
    assert all(torch.equal(a, b) for a, b in zip(end, last, strict=True) if a is not None)
    assert torch.equal(layer(drive), layer(drive))  # nothing is left of the run before


def test_a_detached_state_cuts_the_gradient_between_the_parts():
    layer = SpikingLayer(NeuronOptions(decay=0.9))
    for cut in (True, False):
        drive = torch.rand(6, 2, 3, requires_grad=True)
        _, state = layer.scan(drive[:3])
        layer.scan(drive[3:], state.detached() if cut else state)[0].sum().backward()
        assert (drive.grad[:3].abs().sum() == 0) == cut


@pytest.mark.parametrize("shape", [(5, 2, 7), (5, 2, 3, 6, 4), (5, 1, 3, 4), (5, 2, 8, 1, 1), (3, 4, 1, 5, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_spikes_have_the_shape_type_and_layout_of_the_drive(shape, dtype):
    drive = torch.randn(shape).to(dtype)
    if len(shape) == 5:
        drive = drive.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, shape[:2])
    spikes = SpikingLayer(NeuronOptions())(drive)
    assert spikes.dtype == dtype
    assert (spikes.shape, spikes.flatten(0, 1)[0].stride()) == (drive.shape, drive.flatten(0, 1)[0].stride())
    assert set(spikes.unique().tolist()) == {0.0, 1.0}


def test_one_threshold_for_each_channel():
    drive = torch.full((1, 2, 3, 4, 4), 1.0)
    spikes = SpikingLayer(NeuronOptions(), threshold=torch.tensor([0.5, 1.0, 1.5]))(drive)
    assert spikes.mean((0, 1, 3, 4)).tolist() == [1, 1, 0]


def test_mistakes_are_named():
    layer = SpikingLayer(NeuronOptions())
    with pytest.raises(UserError, match=r"must be \[T, B, C, ...\] with T > 0; got \[0, 2, 3\]"):
        layer(torch.zeros(0, 2, 3))
    with pytest.raises(UserError, match=r"pooled neurons must be \[T, B, C, H, W\]; got \[4, 2, 3\]"):
        SpikingLayer(NeuronOptions(), pool=2)(torch.zeros(4, 2, 3))
    with pytest.raises(UserError, match="decay must be left out for neuron if"):
        SpikingLayer(NeuronOptions(neuron="if", decay=0.5))


def test_a_missing_engine_is_named(monkeypatch):
    monkeypatch.setattr("engram.snn.engines.find_spec", lambda _name: None)
    with pytest.raises(UserError, match="engine norse must be installed"):
        SpikingLayer(NeuronOptions(engine="norse", surrogate="superspike"))


def network(*pools: nn.Module) -> fx.GraphModule:
    class Leaf(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return isinstance(m, TimedNeurons) or super().is_leaf_module(m, module_qualified_name)

    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding=1), SpikingLayer(NeuronOptions(threshold=0.3))]
    net = nn.Sequential(*layers, *pools, nn.Conv2d(4, 3, 1), SpikingLayer(NeuronOptions(threshold=0.1)))
    return fx.GraphModule(net, Leaf().trace(net))


def simulate(net: fx.GraphModule, x: torch.Tensor, steps: int) -> tuple[torch.Tensor, list]:
    net.zero_grad()
    out = TimeFolded(net, steps, frames=False).run(x)
    out.sum().backward()
    return out, [p.grad for p in net.parameters()]


@pytest.mark.parametrize("pool", [nn.AvgPool2d(2), nn.AvgPool2d((3, 3), stride=3)])
def test_folding_the_pooling_changes_nothing_but_the_graph(pool):
    x = torch.randn(3, 2, 12, 8)
    net = network(pool)
    out, grads = simulate(net, x, 5)
    assert fold_pooling(net) == ["1"]
    assert not [node for node in net.graph.nodes if node.target == "2"]
    same, same_grads = simulate(net, x, 5)
    assert torch.equal(same, out)
    torch.testing.assert_close(same_grads, grads)
    assert fold_pooling(net) == []


@pytest.mark.parametrize(
    "pool", [nn.AvgPool2d(2, stride=1), nn.AvgPool2d(2, padding=1), nn.MaxPool2d(2), nn.AvgPool2d((2, 1))]
)
def test_other_pooling_stays_where_it_is(pool):
    assert fold_pooling(network(pool)) == []


def test_what_is_wanted_as_it_is_stays_too():
    names = [node.name for node in network(nn.AvgPool2d(2)).graph.nodes]
    assert fold_pooling(network(nn.AvgPool2d(2)), keep=[names[2]]) == []
    assert fold_pooling(network(nn.AvgPool2d(2)), keep=[names[3]]) == []
    assert fold_pooling(network(nn.AvgPool2d(2)), layer_of=lambda _module: None) == []


def test_a_layer_called_twice_is_left_alone():
    net = network(nn.AvgPool2d(2))
    pool = next(node for node in net.graph.nodes if node.target == "2")
    with net.graph.inserting_after(pool):
        net.graph.call_module("1", (pool,))
    assert fold_pooling(net) == []


@pytest.mark.parametrize("engine", ["fused", "snntorch"])
def test_pooled_neurons_are_neurons_and_average_pooling(engine):
    drive = torch.randn(4, 2, 3, 6, 6)
    pooled = SpikingLayer(NeuronOptions(engine=engine), pool=2)
    spikes = SpikingLayer(NeuronOptions())(drive)
    assert torch.equal(pooled(drive), F.avg_pool2d(spikes.flatten(0, 1), 2).unflatten(0, (4, 2)))
