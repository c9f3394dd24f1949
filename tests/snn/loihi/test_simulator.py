"""The simulator against neurons counted by hand, over networks of every kind."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.snn.loihi.network import INPUT, LIF, ChipNetwork, Input, Integrator, Population, SigmaDelta, Synapses
from engram.snn.loihi.simulator import Simulator

KEEP = ("spikes", "u", "v")


class Drawn:
    """Parts of networks, of the numbers of a seed; `extreme` takes those at the ends of their range."""

    def __init__(self, seed, extreme=False):
        self.generator, self.extreme = torch.Generator().manual_seed(seed), extreme

    def number(self, low, high):
        return int(torch.randint(low, high + 1, (1,), generator=self.generator))

    def one_of(self, *values):
        return values[self.number(0, len(values) - 1)]

    def tensor(self, shape, low, high):
        found = torch.randint(low, high + 1, tuple(shape), generator=self.generator, dtype=torch.int32)
        ends = torch.randint(0, 2, tuple(shape), generator=self.generator, dtype=torch.int32) * (high - low) + low
        return ends if self.extreme else found

    def weight(self, shape):
        return self.tensor(shape, -128, 127) * 2 if self.number(0, 1) else self.tensor(shape, -20, 25)

    def spread(self, shape, low, high):
        return self.tensor(self.one_of((1,), shape[:1], shape), low, high)

    def neurons(self, shape, kind):
        if kind == "sigma-delta":
            vth, exps = self.number(0, 60), (self.number(0, 2), self.number(0, 3))
            return SigmaDelta(
                vth=vth,
                bias=self.spread(shape, -30, 30),
                spike_exp=exps[0],
                state_exp=exps[1],
                activation=self.one_of("relu", "unit"),
                cum_error=bool(self.number(0, 1)),
            )
        bias = self.spread(shape, -4096, 4095) if self.extreme else self.spread(shape, -20, 40)
        if kind == "integrator":
            return Integrator(bias=bias, bias_exp=self.number(0, 7))
        return LIF(
            du=self.one_of(4095, 0, self.number(0, 4095)),
            dv=self.one_of(0, 4095, self.number(0, 4095)),
            vth=131071 if self.extreme else self.number(0, 400),
            bias=bias,
            bias_exp=self.number(0, 7),
            start=self.spread(shape, 1 - 2**23, 2**23 - 1) if self.extreme else self.spread(shape, -900, 900),
            reset=self.one_of("hard", "soft"),
            refractory=self.one_of(0, 0, 1, 3),
        )

    def conv(self, source, in_shape, **more):
        groups = self.one_of(1, in_shape[0])
        kernel, stride = (self.number(1, 3), self.number(1, 3)), (self.number(1, 2), self.number(1, 2))
        padding = (self.number(0, 2), self.number(0, 2))
        fits = zip(in_shape[1:], kernel, padding, strict=True)
        dilation = tuple(self.number(1, 2) if 2 * k - 1 <= n + 2 * p else 1 for n, k, p in fits)
        sides = zip(in_shape[1:], kernel, stride, padding, dilation, strict=True)
        size = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides]
        filters = groups * self.number(1, 2)
        weight = self.weight((filters, in_shape[0] // groups, *kernel))
        exponent = self.number(0, 9) if self.extreme else self.number(-2, 2)
        made = Synapses(
            source=source,
            kind="conv",
            weight=weight,
            in_shape=in_shape,
            exponent=exponent,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            **more,
        )
        return made, (filters, *size)

    def dense(self, source, in_shape, shape, **more):
        count = [int(torch.tensor(each).prod()) for each in (shape, in_shape)]
        delays = self.tensor(count, 0, 2) if self.number(0, 2) == 0 else None
        exponent = self.number(0, 12) if self.extreme else self.number(-3, 2)
        return Synapses(
            source=source,
            kind="dense",
            weight=self.weight(count),
            in_shape=in_shape,
            exponent=exponent,
            delays=delays,
            **more,
        )

    def network(self, kind, frames=False, circle=False):
        given = Input(
            shape=(2, 5, 4),
            bits=self.one_of(1, 4, 8),
            signed=bool(self.number(0, 1)),
            encoding=self.one_of("value", "delta"),
        )
        conv, shape = self.conv(INPUT, given.shape)
        back = (self.dense("second", (5,), shape, delay=self.number(1, 2)),) if circle else ()
        first = Population(name="first", shape=shape, neurons=self.neurons(shape, kind), synapses=(conv, *back))
        across = (
            self.dense("second", (5,), (5,), delay=1),
            self.dense(INPUT, given.shape, (5,), delay=self.number(0, 2)),
        )
        ahead = self.dense("first", shape, (5,), delay=self.number(0, 2))
        second = Population(
            name="second", shape=(5,), neurons=self.neurons((5,), kind), synapses=(ahead, *across[not circle :])
        )
        last = self.one_of("integrator", kind)
        readout = "spikes" if last == "lif" else "potential"
        read = Population(
            name="read",
            shape=(3,),
            neurons=self.neurons((3,), last),
            synapses=(self.dense("second", (5,), (3,)),),
            scale=0.37,
        )
        return ChipNetwork(
            input=given,
            populations=(first, second, read),
            steps=5,
            delay=self.number(0, 2),
            readout=readout,
            frames=frames,
        )

    def images(self, network, count=2):
        bits, signed = network.input.bits, network.input.signed
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        shape = (count, *((5,) if network.frames else ()), *network.input.shape)
        return self.tensor(shape, low, high)


def same(network, images, by_hand):
    run = Simulator(network).run(images, KEEP)
    wanted, operations = by_hand(network, images)
    for name, values in wanted.items():
        for what, value in values.items():
            assert torch.equal(run.kept[name][what].long(), value), (name, what)
        assert run.activity[name].spikes == int((values["spikes"] != 0).sum())
        assert run.extremes[name].u == int(values["u"].abs().max())
    assert run.operations * len(images) == operations


@pytest.mark.parametrize("kind", ["lif", "sigma-delta"])
@pytest.mark.parametrize("extreme", [False, True])
@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), frames=st.booleans(), circle=st.booleans())
def test_every_state_and_message_is_the_one_counted_by_hand(by_hand, kind, extreme, seed, frames, circle):
    draw = Drawn(seed, extreme)
    network = draw.network(kind, frames, circle)
    same(network, draw.images(network), by_hand)
