"""Networks of chip integers that are trained."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from engram.backbone.contract import Backbone
from engram.backbone.errors import UserError
from engram.snn.loihi.network import LIF, ChipNetwork, Input, Integrator, Population, SigmaDelta, Synapses
from engram.snn.loihi.simulator import Simulator
from engram.snn.loihi.trainable import TrainableChip


def random(shape, low, high, seed):
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int32)


def network(neurons: Any, last: Any = None, encoding: Any = "value", delays=False):
    graded = isinstance(neurons, SigmaDelta)
    last = Integrator(bias=random((3,), -50, 50, 5)) if last is None else last
    bias = random((4,), -20, 20, 4)
    first = Synapses(
        source="input", kind="conv", weight=random((4, 1, 3, 3), -60, 60, 1), in_shape=(1, 6, 6), stride=(2, 2)
    )
    dense = Synapses(
        source="a",
        kind="dense",
        weight=2 * random((3, 16), -60, 60, 2),
        in_shape=(4, 2, 2),
        exponent=-3 if graded else 1,
    )
    if delays:
        dense = replace(dense, delays=random((3, 16), 0, 3, 3), delay=1)
    populations = (
        Population(name="a", shape=(4, 2, 2), neurons=replace(neurons, bias=bias), synapses=(first,)),
        Population(
            name="out", shape=(3,), neurons=last, synapses=(dense,), scale=5.0 if isinstance(last, LIF) else 0.01
        ),
    )
    given = Input(shape=(1, 6, 6), gain=255.0, encoding=encoding)
    return ChipNetwork(input=given, populations=populations, steps=6)


NETWORKS = {
    "hard": network(LIF(vth=9000, dv=1024)),
    "soft": network(LIF(vth=9000, reset="soft")),
    "current": network(LIF(vth=12000, du=2047, dv=512)),
    "refractory": network(LIF(vth=9000, refractory=2)),
    "delays": network(LIF(vth=9000), delays=True),
    "spikes": replace(network(LIF(vth=9000), LIF(vth=200, bias_exp=3)), readout="spikes"),
    "changes": network(SigmaDelta(vth=3, state_exp=5), SigmaDelta(vth=1, state_exp=2, activation="unit"), "delta"),
}


def images(count=5, frames=None):
    shape = (count, *(() if frames is None else (frames,)), 1, 6, 6)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(7)).float() / 255


@pytest.mark.parametrize("frames", [None, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_network_itself_in_evaluation_and_next_to_it_in_training(name, frames):
    chip, x = TrainableChip(NETWORKS[name]), images(frames=frames)
    assert isinstance(chip, Backbone)
    with torch.no_grad():
        exact = chip.eval().forward_steps(x)
        trained = chip.train().forward_steps(x)
    found = Simulator(replace(NETWORKS[name], frames=frames is not None)).run(NETWORKS[name].input.whole(x)).logits
    assert exact.shape == (frames or 6, 5, 3) and exact.std() > 0
    last = exact[-1] if chip.readout == "last" else exact.mean(0)
    torch.testing.assert_close(last, found[-1], rtol=1e-4, atol=1e-3)
    assert ((exact - trained).abs() <= 1e-3 * exact.abs().max()).double().mean() > 0.9
    same = chip.network()
    for a, b in zip(same.populations, NETWORKS[name].populations, strict=True):
        assert torch.equal(a.neurons.bias, b.neurons.bias)
        assert all(torch.equal(p.weight, q.weight) for p, q in zip(a.synapses, b.synapses, strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_training_lowers_the_loss_in_whole_numbers(name):
    torch.manual_seed(0)
    chip, x, y = TrainableChip(NETWORKS[name]), images(60), torch.arange(60) % 3
    x[torch.arange(60), 0, 2 * y, :] = 1.0

    def loss():
        with torch.no_grad():
            return float(nn.functional.cross_entropy(chip.eval()(x), y))

    before, optimizer = loss(), torch.optim.Adam(chip.parameters(), 0.02)
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.cross_entropy(chip.train()(x), y).backward()
        optimizer.step()
    assert loss() < 0.8 * before
    weights = [one.weight for each in chip.network().populations for one in each.synapses]
    assert weights[0].abs().max() <= 127 and not (weights[1] & 1).any() and weights[1].abs().max() <= 254


def test_unrounded_weights_are_where_it_begins():
    base = NETWORKS["hard"]
    exact = base.populations[0].synapses[0].weight + 0.4
    chip = TrainableChip(base, {("a", 0): exact})
    assert torch.equal(chip.network().populations[0].synapses[0].weight, base.populations[0].synapses[0].weight)
    torch.testing.assert_close(chip.weights[0] * chip.wires["a"][0].unit, exact)


def test_clipped_weights_get_no_gradient():
    base = NETWORKS["hard"]
    exact = base.populations[0].synapses[0].weight.float()
    exact[0] = 300.0
    chip = TrainableChip(base, {("a", 0): exact}).train()
    chip.forward_steps(images()).square().sum().backward()
    grad = chip.weights[0].grad
    assert grad is not None and not grad[0].any() and grad[1:].any()


def test_populations_that_drive_themselves_are_not_trained():
    base = NETWORKS["hard"]
    first, last = base.populations
    loop = Synapses(source="a", kind="dense", weight=random((16, 16), -5, 5, 1), in_shape=(4, 2, 2), delay=1)
    looped = replace(base, populations=(replace(first, synapses=(*first.synapses, loop)), last))
    chip = TrainableChip(looped)
    assert len(chip.eval()(images())) == len(images())  # simulated they can be
    with pytest.raises(UserError, match="must be an earlier population; got a"):
        chip.train()(images())
