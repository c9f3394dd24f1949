import itertools

import pytest
import torch
from torch import fx, nn

from engram.backbone.errors import UserError
from engram.backbone.nets.blocks import StaticBackbone
from engram.backbone.nets.folding import fold_batchnorm, trace
from engram.snn.graph.pooling import running
from engram.snn.graph.timed import TimeFolded
from engram.snn.neurons.integrate_fire import IntegrateFire
from engram.snn.simulation.counting import Tally, macs, relay, synapses


def converted(net):
    """A graph with neurons of threshold 1 where the ReLUs were, and max pooling along time."""
    graph = fold_batchnorm(trace(net))
    for name, module in list(graph.named_modules()):
        if isinstance(module, nn.ReLU):
            graph.set_submodule(name, IntegrateFire(torch.ones(1), torch.zeros(1, dtype=torch.bool)))
        elif isinstance(module, nn.MaxPool2d):
            graph.set_submodule(name, running(module))
    return graph


class Tallied(TimeFolded):
    """Runs a graph and tallies what its neurons and pools send; keeps it, too."""

    def __init__(self, graph, steps, tally):
        super().__init__(graph, steps, False)
        self.tally, self.sent = tally, {}

    def run_node(self, n):
        out = super().run_node(n)
        name = relay(n) if relay(n) in self.tally.fan_out else str(n.target)
        if name in self.tally.fan_out:
            self.sent[name] = self.in_time(n, out).clone()
            self.tally.add(name, self.sent[name] != 0)
        return out


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
    net = StaticBackbone((1, 10, 10), stages, nn.Sequential(nn.Flatten(), nn.Linear(27, 4), nn.ReLU())).eval()
    second, linear, head = net.body[1], net.tail[1], nn.Linear(4, 7)
    with torch.no_grad():
        second.weight[0, 1, 2, :] = 0  # pruned synapses are none
        linear.weight[2, 5:9] = 0
    found = synapses(converted(net), head, (1, 10, 10))
    first = torch.zeros(2, 10, 10)
    for c, i, j in itertools.product(range(2), range(10), range(10)):
        first[c, i, j] = len(list(conv_targets(second, c, i // 2, j // 2, 5)))
    assert torch.equal(found.fan_out["body.0.1"], first.double())
    assert torch.equal(found.fan_out["body.2"].flatten(), (linear.weight != 0).sum(0).double())
    assert torch.equal(found.fan_out["tail.2"], torch.full((4,), 7.0, dtype=torch.float64))
    assert found.fan_out["body.0.1"][0, 0, 0] < found.fan_out["body.0.1"][0, 3, 3]  # a corner reaches fewer


def test_macs_against_a_loop():
    net = StaticBackbone((1, 5, 5), [nn.Conv2d(1, 2, 3, padding=1), nn.ReLU()], nn.Flatten()).eval()
    found = synapses(converted(net), nn.Linear(50, 3), (1, 5, 5))
    first = sum(len(list(conv_targets(net.body[0], 0, i, j, 5))) for i in range(5) for j in range(5))
    assert first == 2 * (3 * 5 - 2) ** 2  # rows x columns of the 3x3 windows that lie inside
    assert (found.macs, found.analog_macs) == (first + 150, first)


def test_a_residual_addition_is_one_more_synapse(residual_net):
    for parameter in residual_net.parameters():
        parameter.data.fill_(1.0)
    found = synapses(converted(residual_net), nn.Linear(4, 3), (2, 8, 8))
    # the stem's neurons feed a 3x3 convolution to 4 channels, and the addition behind it
    assert found.fan_out["body.0.1"][0, 4, 4] == 4 * 9 + 1
    assert found.fan_out["body.0.1"][0, 0, 0] == 4 * 4 + 1


@pytest.mark.parametrize(
    ("pool", "reached"), [(nn.AdaptiveAvgPool2d(1), 1), (nn.AdaptiveAvgPool2d(3), None), (nn.AvgPool2d(2), 1)]
)
def test_every_neuron_under_a_pool_counts_once_per_bin(pool, reached):
    net = StaticBackbone((1, 4, 4), [nn.Conv2d(1, 1, 1), nn.ReLU()], nn.Sequential(pool, nn.Flatten())).eval()
    fan_out = synapses(converted(net), nn.Linear(net.feature_dim, 1), (1, 4, 4)).fan_out["body.1"]
    if reached is None:  # bins of 4 into 3 are [0, 2), [1, 3), [2, 4): they overlap
        per_axis = torch.tensor([1.0, 2.0, 2.0, 1.0], dtype=torch.float64)
        assert torch.equal(fan_out[0], per_axis[:, None] * per_axis)
    else:
        assert torch.equal(fan_out, torch.full((1, 4, 4), float(reached), dtype=torch.float64))


def against_a_loop(graph, found, images, checkpoints):
    """Run, and hold the tally against a loop over all spikes."""
    tally = Tally(found.fan_out, checkpoints)
    run = Tallied(graph, checkpoints[-1], tally)
    run.run(images)
    for place, (layer, fan_out) in enumerate(found.fan_out.items()):
        for k, steps in enumerate(checkpoints):
            fired = [tuple(index[2:].tolist()) for index in run.sent[layer][:steps].nonzero()]
            assert tally.spikes[place, k] == len(fired)
            assert tally.operations[place, k] == sum(float(fan_out[index]) for index in fired)
    assert tally.spikes[:, -1].all()
    return tally


@torch.no_grad()
def test_operations_of_a_simulation_against_a_loop_over_spikes(sequential_net, images):
    graph, head = converted(sequential_net), nn.Linear(5, 3)
    found = synapses(graph, head, (2, 8, 8))
    tally = against_a_loop(graph, found, images, [1, 2, 4])
    before = tally.operations.clone()
    Tallied(graph, 4, tally).run(images)
    assert torch.equal(tally.operations, 2 * before)  # tallies add up over chunks


@torch.no_grad()
def test_behind_a_max_pool_only_spikes_that_leave_it_cause_operations(exact, images):
    stages = [nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)), nn.Conv2d(3, 4, 3, padding=1)]
    net = exact(StaticBackbone((2, 8, 8), [*stages, nn.ReLU()], nn.Sequential(nn.AvgPool2d(4), nn.Flatten())))
    net.body[1].weight.data.fill_(1 / 8)
    graph = converted(net)
    found = synapses(graph, nn.Linear(4, 3), (2, 8, 8))
    assert found.relays == {"%body_0_2"}
    assert found.neurons == 3 * 64 + 4 * 16
    assert not found.fan_out["body.0.1"].any()  # a neuron under a pool drives comparisons, not synapses
    assert (found.fan_out["%body_0_2"][0, 0, 0], found.fan_out["%body_0_2"][0, 1, 1]) == (4 * 4, 4 * 9)
    tally = against_a_loop(graph, found, images, [2, 4])
    places = list(found.fan_out)
    under, behind = (tally.spikes[places.index(name), -1] for name in ("body.0.1", "%body_0_2"))
    assert 0 < behind < under


def test_a_pool_of_analog_values_is_no_relay():
    net = StaticBackbone((1, 4, 4), [nn.MaxPool2d(2), nn.Conv2d(1, 1, 1), nn.ReLU()], nn.Flatten()).eval()
    found = synapses(converted(net), nn.Linear(4, 1), (1, 4, 4))
    assert (found.relays, found.analog_driven) == (frozenset(), 4)


def test_synapses_of_the_input_are_those_of_the_first_layer(residual_net):
    for parameter in residual_net.parameters():
        parameter.data.fill_(1.0)
    found = synapses(converted(residual_net), nn.Linear(4, 3), (2, 8, 8))
    assert (found.input_fan_out[0, 4, 4], found.input_fan_out[1, 0, 0]) == (4 * 9, 4 * 4)
    assert int(found.input_fan_out.sum()) == found.analog_macs  # a dense input does every multiplication
    assert found.analog_driven == 4 * 64
    assert found.neurons == sum(fan_out.numel() for fan_out in found.fan_out.values())


def test_macs_of_an_analog_network_with_normalisation_and_pruned_weights():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    net[0].weight.data.fill_(1.0)[1] = 0
    # one of the two kernels is left: (3 * 4 - 2) ** 2 multiplications inside the picture
    assert macs(fx.symbolic_trace(net), nn.Linear(8, 3), (1, 4, 4)) == 100 + 24


def test_a_simulation_of_another_length_is_refused():
    with pytest.raises(UserError, match="the simulation must be 4 steps long; got 3"):
        Tally({"a": torch.ones(2)}, [2, 4]).add("a", torch.zeros(3, 1, 2))


def test_counts_in_bfloat16_are_exact():
    tally = Tally({"a": torch.ones(2, dtype=torch.float64)}, [300])
    tally.add("a", torch.ones(300, 1, 2, dtype=torch.bfloat16))  # which itself cannot count beyond 256
    assert tally.spikes.tolist() == [[600.0]]


@torch.no_grad()
def test_state_of_a_tally_survives(sequential_net, images):
    graph = converted(sequential_net)
    fan_out = synapses(graph, nn.Linear(5, 3), (2, 8, 8)).fan_out
    first, second = Tally(fan_out, [1, 2]), Tally(fan_out, [1, 2])
    Tallied(graph, 2, first).run(images)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.spikes, second.spikes)
    assert torch.equal(first.operations, second.operations)
    assert second.seen == set(fan_out)
