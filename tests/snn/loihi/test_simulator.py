"""The simulator against neurons counted by hand, over networks of every kind."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.backbone.errors import UserError
from engram.snn.loihi import layers, native, simulator
from engram.snn.loihi.arriving import Sent, Wires
from engram.snn.loihi.network import (
    INPUT,
    LIF,
    ChipNetwork,
    Input,
    Integrator,
    Population,
    SigmaDelta,
    Synapses,
    offsets,
)
from engram.snn.loihi.simulator import Simulator
from engram.snn.simulation import events

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


def test_without_a_compiler_every_bit_is_the_same(monkeypatch):
    drawn = []
    for seed in range(6):
        draw = Drawn(seed, extreme=seed % 2 == 1)
        network = draw.network("lif", frames=seed > 2, circle=seed == 4)
        drawn.append((network, draw.images(network, 3)))
    compiled = [Simulator(network).run(images, KEEP) for network, images in drawn]
    for module in (native, events):
        monkeypatch.setattr(module, "library", lambda: None)
    for (network, images), wanted in zip(drawn, compiled, strict=True):
        run = Simulator(network).run(images, KEEP)
        assert torch.equal(run.logits, wanted.logits)
        assert run.operations == wanted.operations
        assert run.extremes == wanted.extremes
        for name, values in wanted.kept.items():
            assert all(torch.equal(run.kept[name][what], value) for what, value in values.items())


def pooled(stride, kind):
    """Weights as they are behind an average pool of 2 x 2 in front of a convolution of 3 x 3, or of a matrix."""
    generator = torch.Generator().manual_seed(1)
    once = torch.randint(-9, 12, (4, 6, 3, 3), generator=generator, dtype=torch.int32)
    if kind == "conv":
        weight = once.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return Synapses(
            source="first", kind="conv", weight=weight, in_shape=(6, 12, 12), stride=(stride, stride), padding=(2, 2)
        )
    once = torch.randint(-9, 12, (5, 6, 6, 6), generator=generator, dtype=torch.int32)
    weight = once.repeat_interleave(2, 2).repeat_interleave(2, 3).flatten(1)
    return Synapses(source="first", kind="dense", weight=weight, in_shape=(6, 12, 12))


@pytest.mark.parametrize("limit", [0.0, 1.0])
@pytest.mark.parametrize("synapses", [pooled(2, "conv"), pooled(3, "conv"), pooled(2, "dense")])
def test_windows_summed_first_and_spikes_followed_give_the_same_sums(monkeypatch, limit, synapses):
    if events.library() is None:
        pytest.skip("nothing compiles")
    monkeypatch.setattr(layers, "pays", lambda spikes, layer: limit == 1.0 and events.fits(spikes, layer))
    messages = (torch.rand(3, 2, 6, 12, 12, generator=torch.Generator().manual_seed(2)) < 0.3).to(torch.uint8)
    flat = messages.flatten(0, 1).double()
    if synapses.kind == "conv":
        plain = F.conv2d(flat, synapses.weight.double(), stride=synapses.stride, padding=synapses.padding)
    else:
        plain = F.linear(flat.flatten(1), synapses.weight.double())
    sent = Sent(messages, 1, (messages != 0).sum((0, 1)).double())
    (arrived,) = Wires(synapses, tuple(plain.shape[1:]), torch.device("cpu")).send(sent).values()
    assert torch.equal(arrived.flatten(0, 1).double(), plain)


@pytest.mark.parametrize("kind", ["lif", "sigma-delta"])
def test_on_the_chips_time_populations_lie_their_offsets_behind(kind):
    for seed in range(8):
        draw = Drawn(seed)
        network = draw.network(kind, frames=seed % 2 == 0, circle=False)
        aligned, chip = (Simulator(network, timing=timing) for timing in ("aligned", "chip"))
        images = draw.images(network)
        wanted, found = aligned.run(images, KEEP), chip.run(images, KEEP)
        undelayed = all(one.delay == 0 and one.delays is None for each in network.populations for one in each.synapses)
        for each in network.populations:
            begin = chip.offsets[each.name]
            assert begin == offsets(network)[each.name]
            if undelayed or each.name == "first":
                for what, value in wanted.kept[each.name].items():
                    assert torch.equal(found.kept[each.name][what][begin : begin + len(value)], value)
        if undelayed:
            assert torch.equal(found.logits, wanted.logits)


def test_chunks_change_nothing(monkeypatch):
    draw = Drawn(3)
    network = draw.network("lif")
    images = draw.images(network, 5)
    whole = Simulator(network).run(images, KEEP)
    monkeypatch.setattr(simulator, "MEMORY", 1)
    parts = Simulator(network).run(images, KEEP)
    assert torch.equal(whole.logits, parts.logits)
    assert (whole.images, whole.operations, whole.extremes) == (parts.images, parts.operations, parts.extremes)
    assert torch.equal(whole.kept["read"]["v"], parts.kept["read"]["v"])


def test_logits_are_means_of_what_reached_the_readout_in_the_networks_units():
    synapses = Synapses(
        source=INPUT, kind="dense", weight=torch.tensor([[3, 1]], dtype=torch.int32), in_shape=(2, 1, 1)
    )
    read = Population(name="read", shape=(1,), neurons=Integrator(), synapses=(synapses,), scale=1 / 64)
    network = ChipNetwork(input=Input(shape=(2, 1, 1)), populations=(read,), steps=0, delay=1, frames=True)
    frames = torch.tensor([[[[[1]], [[1]]], [[[2]], [[0]]], [[[4]], [[8]]]]])
    assert Simulator(network).run(frames).logits.flatten().tolist() == [4.0, 6.0, 13.0]
    spiking = replace(read, neurons=LIF(vth=4, reset="soft"), scale=5.0)
    network = replace(network, populations=(spiking,), readout="spikes", delay=0)
    assert Simulator(network).run(frames).logits.flatten().tolist() == pytest.approx([0.0, 2.5, 10 / 3])


def test_images_of_another_kind_are_refused_in_one_line():
    network = Drawn(0).network("lif")
    bits, shape = network.input.bits, network.input.shape
    simulated = Simulator(network)
    for images, said in [
        (torch.zeros(1, *shape), "images must be whole numbers; got torch.float32."),
        (torch.zeros(1, 3, *shape, dtype=torch.int32), r"images must be \[B, 2, 5, 4\]; got \[1, 3, 2, 5, 4\]."),
        (torch.full((1, *shape), 1 << bits), "images must be .* to"),
    ]:
        with pytest.raises(UserError, match=said):
            simulated.run(images)
    with pytest.raises(UserError, match=r"keep must be some of spikes, u, v; got membrane\."):
        simulated.run(torch.zeros(1, *shape, dtype=torch.int32), ["membrane"])


def test_networks_that_the_chip_cannot_hold_are_refused_with_all_that_is_wrong():
    odd = torch.tensor([[201, -3]], dtype=torch.int32)
    synapses = Synapses(source=INPUT, kind="dense", weight=odd, in_shape=(2, 1, 1))
    wrong = LIF(vth=131072, bias=torch.tensor([5000], dtype=torch.int32), dv=4096)
    population = Population(name="a", shape=(1,), neurons=wrong, synapses=(synapses, replace(synapses, source="b")))
    network = ChipNetwork(input=Input(shape=(2, 1, 1)), populations=(population,), steps=1)
    with pytest.raises(UserError) as refused:
        Simulator(network)
    said = str(refused.value)
    for part in (
        "a: vth",
        "a: bias",
        "a: dv",
        "even, or -128 to 127",
        "from one of input, a; got b",
        "Read its spikes",
    ):
        assert part in said
