"""Random networks of chip integers, and what they do counted by hand: plain Python, one neuron after the other."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from engram.snn.loihi.network import INPUT, LIF, ChipNetwork, Input, Integrator, Population, SigmaDelta, Synapses


def int32(x):
    return (x + 2**31) % 2**32 - 2**31


def cut(x, keep):
    return int(math.copysign(abs(x) * keep // 4096, x))


class Neuron:
    """One neuron of a population; `step` takes what arrives and gives what is sent."""

    def __init__(self, neurons, bias, start):
        self.neurons, self.bias, self.start = neurons, int(bias), int(start)
        self.begin()

    def begin(self):
        self.u, self.v, self.rest, self.residue, self.error = 0, self.start, 0, 0, 0

    def step(self, a):
        p = self.neurons
        return self.changed(p, a) if isinstance(p, SigmaDelta) else self.fired(p, a)

    def fired(self, p, a):
        lif = isinstance(p, LIF)
        self.u = int32((cut(self.u, 4095 - p.du) if lif else 0) + int32(a << 6))
        if self.u > 2**23:
            self.u -= 2**24
        elif self.u <= -(2**23):
            self.u += 2**24
        if self.rest:
            self.rest -= 1
            return 0
        kept = cut(self.v, 4096 - p.dv) if lif else self.v
        self.v = max(-(2**23) + 1, min(2**23 - 1, int32(kept + self.u + (self.bias << p.bias_exp))))
        if not lif or self.v <= p.vth << 6:
            return 0
        self.v = 0 if p.reset == "hard" else self.v - 64 * (p.vth + 1)
        self.rest = p.refractory
        return 1

    def changed(self, p, a):
        up = p.spike_exp + p.state_exp
        self.u = int32(self.u + a)
        x = int32(self.u + (self.bias << up))
        x = max(x, 0) if p.activation == "relu" else x
        delta = int32(x - self.v + self.residue)
        self.v = x
        compared = int32(self.error + delta) if p.cum_error else delta
        sent = delta if abs(compared) >= p.vth << up else 0
        self.error = 0 if sent else compared
        self.residue = delta - sent
        return sent >> p.state_exp


def taps(one, shape):
    """Every synapse: (neuron reached, neuron of the source, weight, its own delay), by flat numbers."""
    weight = one.weight.tolist()
    if one.kind == "dense":
        delays = None if one.delays is None else one.delays.tolist()
        for o, row in enumerate(weight):
            for i, w in enumerate(row):
                yield o, i, w, 0 if delays is None else delays[o][i]
        return
    filters, channels, rows, columns = one.weight.shape
    _, height, width = one.in_shape
    places = itertools.product(
        range(filters), range(shape[1]), range(shape[2]), range(channels), range(rows), range(columns)
    )
    for o, y, x, c, r, k in places:
        iy = y * one.stride[0] - one.padding[0] + r * one.dilation[0]
        ix = x * one.stride[1] - one.padding[1] + k * one.dilation[1]
        if 0 <= iy < height and 0 <= ix < width:
            i = (c + o // (filters // one.groups) * channels) * height * width + iy * width + ix
            yield (o * shape[1] + y) * shape[2] + x, i, weight[o][c][r][k], 0


def shift(x, exponent):
    return int32(x << exponent if exponent >= 0 else x >> -exponent)


class ByHand:
    """One image or sequence through a network."""

    def __init__(self, network):
        self.network = network
        self.taps = {
            (p.name, n): list(taps(one, p.shape)) for p in network.populations for n, one in enumerate(p.synapses)
        }
        self.operations = 0

    def run(self, image):
        """image: [C, H, W] or [T, C, H, W] -> name -> {spikes, u, v: [T, *shape]}, and the operations in all."""
        network = self.network
        steps = len(image) if network.frames else network.steps
        shown = [(image[t] if network.frames else image).flatten().tolist() for t in range(steps)]
        if network.input.encoding == "delta":
            earlier = [[0] * len(shown[0]), *shown[:-1]]
            pairs = zip(shown, earlier, strict=True)
            shown = [[x - y for x, y in zip(now, before, strict=True)] for now, before in pairs]
        neurons = {p.name: self.made(p) for p in network.populations}
        sent, kept = (
            {INPUT: shown, **{p.name: [] for p in network.populations}},
            {p.name: {"u": [], "v": []} for p in network.populations},
        )
        for t in range(steps):
            for p in network.populations:
                arrived = self.arrived(p, sent, t)
                sent[p.name].append([neuron.step(a) for neuron, a in zip(neurons[p.name], arrived, strict=True)])
                kept[p.name]["u"].append([neuron.u for neuron in neurons[p.name]])
                kept[p.name]["v"].append([neuron.v for neuron in neurons[p.name]])
        for p in network.populations:
            for n, one in enumerate(p.synapses):
                busy = np.array([[m != 0 for m in now] for now in sent[one.source]]).sum(0)
                self.operations += sum(int(busy[i]) for _, i, w, _ in self.taps[p.name, n] if w)
            kept[p.name]["spikes"] = sent[p.name]
        return {
            p.name: {k: torch.tensor(x).view(steps, *p.shape) for k, x in kept[p.name].items()}
            for p in network.populations
        }

    def made(self, p):
        def full(values):
            values = values if values.ndim != 1 else values.reshape(-1, *[1] * (len(p.shape) - 1))
            return values.expand(p.shape).flatten().tolist()

        start = full(p.neurons.start) if isinstance(p.neurons, LIF) else [0] * math.prod(p.shape)
        return [Neuron(p.neurons, b, s) for b, s in zip(full(p.neurons.bias), start, strict=True)]

    def arrived(self, p, sent, t):
        total = [0] * math.prod(p.shape)
        for n, one in enumerate(p.synapses):
            sums = {}
            for o, i, w, later in self.taps[p.name, n]:
                at = t - one.delay - later
                if at >= 0:
                    sums[o, later] = sums.get((o, later), 0) + w * sent[one.source][at][i]
            for (o, _), x in sums.items():
                x = shift(x, one.exponent)
                total[o] = int32(total[o] + ((x + 2**23) % 2**24 - 2**23 if one.kind == "conv" else x))
        return total


@pytest.fixture(scope="session")
def by_hand():
    """network, images [B, ...] -> (name -> spikes, u, v: [T, B, *shape]; synaptic operations in all)."""

    def run(network, images):
        hand = ByHand(network)
        found = [hand.run(image) for image in images]
        stacked = {
            name: {what: torch.stack([one[name][what] for one in found], 1) for what in found[0][name]}
            for name in found[0]
        }
        return stacked, hand.operations

    return run


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


@pytest.fixture(scope="session")
def drawn():
    """`Drawn`."""
    return Drawn
