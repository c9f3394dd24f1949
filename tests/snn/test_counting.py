import itertools

import pytest
import torch
from torch import nn

from backbone.nets.blocks import StaticBackbone
from snn.balancing import Thresholds
from snn.conversion import lower, spiking
from snn.counting import Tally, synapses


def converted(net, steps=4):
    graph = lower(net)
    names = [name for name, module in graph.named_modules() if isinstance(module, nn.ReLU)]
    one = Thresholds(torch.ones(1), torch.zeros(1, dtype=torch.bool))
    return spiking(net, graph, dict.fromkeys(names, one), steps)


def conv_targets(conv, channel, row, column, size):
    """(c, y, x) of every output a single input reaches, by looping over the outputs."""
    (k, _), (s, _), (p, _) = conv.kernel_size, conv.stride, conv.padding
    side = (size + 2 * p - k) // s + 1
    for c, y, x in itertools.product(range(conv.out_channels), range(side), range(side)):
        i, j = row - (y * s - p), column - (x * s - p)
        if 0 <= i < k and 0 <= j < k and conv.weight[c, channel, i, j] != 0:
            yield c, y, x


def test_fan_out_against_a_loop_over_synapses():
    """conv3 -> neurons -> pool -> conv3 stride 2 -> neurons -> flatten -> linear -> neurons -> head."""
    torch.manual_seed(0)
    stages = [
        nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
        nn.Conv2d(2, 3, 3, 2, 1),
        nn.ReLU(),
    ]
    net = StaticBackbone((1, 10, 10), stages, nn.Sequential(nn.Flatten(), nn.Linear(27, 4), nn.ReLU()), "full").eval()
    second, linear, head = net.body[1], net.tail[1], nn.Linear(4, 7)
    with torch.no_grad():
        second.weight[0, 1, 2, :] = 0  # pruned synapses are none
        linear.weight[2, 5:9] = 0
    found = synapses(converted(net).graph, head, (1, 10, 10))
    first = torch.zeros(2, 10, 10)
    for c, i, j in itertools.product(range(2), range(10), range(10)):
        first[c, i, j] = len(list(conv_targets(second, c, i // 2, j // 2, 5)))
    assert torch.equal(found.fan_out["body.0.1"], first.double())
    assert torch.equal(found.fan_out["body.2"].flatten(), (linear.weight != 0).sum(0).double())
    assert torch.equal(found.fan_out["tail.2"], torch.full((4,), 7.0, dtype=torch.float64))
    assert found.fan_out["body.0.1"][0, 0, 0] < found.fan_out["body.0.1"][0, 3, 3]  # a corner reaches fewer


def test_macs_against_a_loop():
    net = StaticBackbone((1, 5, 5), [nn.Conv2d(1, 2, 3, padding=1), nn.ReLU()], nn.Flatten(), "full").eval()
    found = synapses(converted(net).graph, nn.Linear(50, 3), (1, 5, 5))
    first = sum(len(list(conv_targets(net.body[0], 0, i, j, 5))) for i in range(5) for j in range(5))
    assert first == 2 * (3 * 5 - 2) ** 2  # rows x columns of the 3x3 windows that lie inside
    assert (found.macs, found.analog_macs) == (first + 150, first)


def test_a_residual_addition_is_one_more_synapse(residual_net):
    for parameter in residual_net.parameters():
        parameter.data.fill_(1.0)
    found = synapses(converted(residual_net).graph, nn.Linear(4, 3), (2, 8, 8))
    # the stem's neurons feed a 3x3 convolution to 4 channels, and the addition behind it
    assert found.fan_out["body.0.1"][0, 4, 4] == 4 * 9 + 1
    assert found.fan_out["body.0.1"][0, 0, 0] == 4 * 4 + 1


@pytest.mark.parametrize(
    ("pool", "reached"), [(nn.AdaptiveAvgPool2d(1), 1), (nn.AdaptiveAvgPool2d(3), None), (nn.AvgPool2d(2), 1)]
)
def test_every_neuron_under_a_pool_counts_once_per_bin(pool, reached):
    net = StaticBackbone((1, 4, 4), [nn.Conv2d(1, 1, 1), nn.ReLU()], nn.Sequential(pool, nn.Flatten()), "full").eval()
    fan_out = synapses(converted(net).graph, nn.Linear(net.feature_dim, 1), (1, 4, 4)).fan_out["body.1"]
    if reached is None:  # bins of 4 into 3 are [0, 2), [1, 3), [2, 4): they overlap
        per_axis = torch.tensor([1.0, 2.0, 2.0, 1.0], dtype=torch.float64)
        assert torch.equal(fan_out[0], per_axis[:, None] * per_axis)
    else:
        assert torch.equal(fan_out, torch.full((1, 4, 4), float(reached), dtype=torch.float64))


@torch.no_grad()
def test_operations_of_a_simulation_against_a_loop_over_spikes(sequential_net, images):
    net, head = converted(sequential_net, 4), nn.Linear(5, 3)
    found = synapses(net.graph, head, net.in_shape)
    tally = Tally(found.fan_out, [1, 2, 4])
    seen = {}
    tally_add = tally.add
    tally.add = lambda layer, spikes: (seen.__setitem__(layer, spikes.clone()), tally_add(layer, spikes))
    net.simulate(images, tally)
    for place, (layer, fan_out) in enumerate(found.fan_out.items()):
        for k, steps in enumerate([1, 2, 4]):
            fired = [tuple(index[2:].tolist()) for index in seen[layer][:steps].nonzero()]
            assert tally.spikes[place, k] == len(fired)
            assert tally.operations[place, k] == sum(float(fan_out[index]) for index in fired)
    assert tally.spikes.sum() > 0
    before = tally.operations.clone()
    net.simulate(images, tally)
    assert torch.equal(tally.operations, 2 * before)  # tallies add up over chunks


@torch.no_grad()
def test_state_of_a_tally_survives(sequential_net, images):
    net = converted(sequential_net, 2)
    fan_out = synapses(net.graph, nn.Linear(5, 3), net.in_shape).fan_out
    first, second = Tally(fan_out, [1, 2]), Tally(fan_out, [1, 2])
    net.simulate(images, first)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.spikes, second.spikes)
    assert torch.equal(first.operations, second.operations)
