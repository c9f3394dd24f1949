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
    Synapses,
    offsets,
)
from engram.snn.loihi.simulator import Simulator
from engram.snn.simulation import events

KEEP = ("spikes", "u", "v")


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
def test_every_state_and_message_is_the_one_counted_by_hand(drawn, by_hand, kind, extreme, seed, frames, circle):
    draw = drawn(seed, extreme)
    network = draw.network(kind, frames, circle)
    same(network, draw.images(network), by_hand)


def test_without_a_compiler_every_bit_is_the_same(drawn, monkeypatch):
    cases = []
    for seed in range(6):
        draw = drawn(seed, extreme=seed % 2 == 1)
        network = draw.network("lif", frames=seed > 2, circle=seed == 4)
        cases.append((network, draw.images(network, 3)))
    compiled = [Simulator(network).run(images, KEEP) for network, images in cases]
    for module in (native, events):
        monkeypatch.setattr(module, "library", lambda: None)
    for (network, images), wanted in zip(cases, compiled, strict=True):
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
def test_on_the_chips_time_populations_lie_their_offsets_behind(drawn, kind):
    for seed in range(8):
        draw = drawn(seed)
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


def test_chunks_change_nothing(drawn, monkeypatch):
    draw = drawn(3)
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


def test_images_of_another_kind_are_refused_in_one_line(drawn):
    network = drawn(0).network("lif")
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


def test_circles_faster_than_the_chip_are_refused_on_its_time(drawn):
    network = drawn(0).network("lif", circle=True)
    first, *rest = network.populations
    conv, back = first.synapses
    quick = replace(first, synapses=(conv, replace(back, delay=1)))
    ahead = replace(rest[0], synapses=tuple(replace(one, delay=0) for one in rest[0].synapses if one.source == "first"))
    network = replace(network, populations=(quick, ahead, *rest[1:]))
    Simulator(network)
    with pytest.raises(UserError, match="first: the way from second, on the chip's time must be at least a step"):
        Simulator(network, timing="chip")


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
