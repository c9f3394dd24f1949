"""What lava-dl keeps of known networks, most of it read off a chip, reproduced element for element."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engram.snn.interchange.netx.reading import read
from engram.snn.loihi.arithmetic import resonate, resonator
from engram.snn.loihi.network import INPUT, LIF, ChipNetwork, Input, Population, SigmaDelta, Synapses
from engram.snn.loihi.simulator import Simulator

FILES = Path(os.environ.get("ENGRAM_DATA", "/nowhere")) / "third-party" / "lava-dl"
RESTING = 128
"""What the chip's register of v holds after a spike: that it rests for one step, 1 << 7."""
PERIOD = 17
"""Steps from one sample of `pilotnet_lif` to the next."""

pytestmark = [pytest.mark.data, pytest.mark.skipif(not FILES.exists(), reason="no files of lava-dl")]


def golden(name):
    """An array [W, H, C, T], or [N, T], as [T, C, H, W] or [T, N], int64."""
    path = FILES / "gts" / f"{name}.npz"
    values = np.load(path)["data"] if path.exists() else np.load(path.with_suffix(".npy"))
    return torch.from_numpy(values.astype(np.int64).T)


def first_image(name):
    """An array [1, C, H, W, T] of lava-dl as [T, C, H, W]."""
    values = np.load(FILES / "gts" / f"{name}.npy")[0]
    assert (values == np.round(values)).all()
    return torch.from_numpy(np.moveaxis(values, -1, 0).astype(np.int64))


def alone(neurons, synapses, shape, given):
    """One population behind the input, taking frames."""
    population = Population(name="a", shape=shape, neurons=neurons, synapses=(synapses,))
    readout = "spikes" if isinstance(neurons, LIF) else "potential"
    return ChipNetwork(input=given, populations=(population,), steps=0, readout=readout, frames=True)


def kept(network, frames, timing="aligned"):
    """population -> what was kept of one sequence, [T, *shape] int64."""
    run = Simulator(network, timing=timing).run(frames.unsqueeze(0), ("spikes", "u", "v"))
    return {name: {what: x[:, 0].long() for what, x in values.items()} for name, values in run.kept.items()}


def lavas_kernels(name):
    """Weights [O, X, Y, C] of a true convolution as `conv2d` takes them."""
    weight = torch.from_numpy(np.load(FILES / "gts" / f"{name}.npy"))
    return weight.flip(1, 2).permute(0, 3, 2, 1).contiguous().to(torch.int32)


def slowed(network):
    """Every connection a step later and no state ever set back: how lava-dl recorded sigma-delta networks."""
    populations = [
        replace(each, synapses=tuple(replace(one, delay=one.delay + 1) for one in each.synapses))
        for each in network.populations
    ]
    return replace(network, populations=tuple(populations))


def test_pilotnets_spikes_currents_and_membranes_from_its_input_spikes():
    network = read(FILES / "gts" / "pilotnet_lif" / "network.net")
    neurons, *layers = network.populations
    first = replace(layers[0], synapses=(replace(layers[0].synapses[0], source=INPUT, exponent=0),))
    given = Input(shape=neurons.shape, bits=1)
    layers = [first, *layers[1:]]
    network = replace(network, input=given, populations=tuple(layers), frames=True)
    spikes = golden("pilotnet_lif/input")
    found = kept(network, spikes[:PERIOD].to(torch.uint8), "chip")
    names = [f"conv-{k}" for k in range(5)] + [f"fc-{k}" for k in range(3)]
    for place, (layer, name) in enumerate(zip(layers, names, strict=False), start=1):
        until = min(place + PERIOD, 24)  # the layer's next sample begins there
        ours = {what: x[:until] for what, x in found[layer.name].items()}
        fired = golden(f"pilotnet_lif/{name}")[:until]
        assert torch.equal(ours["spikes"], fired), name
        if name == "conv-0":
            continue  # of it spikes alone were kept
        assert torch.equal(ours["u"], golden(f"pilotnet_lif/{name}-u")[:until])
        assert torch.equal(torch.where(fired > 0, RESTING, ours["v"]), golden(f"pilotnet_lif/{name}-v")[:until])


def test_pilotnets_input_neurons_fire_as_the_image_says():
    network = read(FILES / "gts" / "pilotnet_lif" / "network.net")
    image = torch.from_numpy(np.load(FILES / "gts" / "pilotnet_lif" / "image.npz")["data"].T.astype(np.int32))
    network = replace(network, populations=network.populations[:1], steps=PERIOD, readout="spikes")
    found = kept(network, image)
    assert torch.equal(found[network.populations[0].name]["spikes"], golden("pilotnet_lif/input")[:PERIOD])


def test_dense():
    weight = torch.from_numpy(np.load(FILES / "gts" / "dense" / "weight.npz")["data"].astype(np.int32))
    synapses = Synapses(source=INPUT, kind="dense", weight=weight, in_shape=(200, 1, 1))
    network = alone(LIF(vth=6, dv=415), synapses, (256,), Input(shape=(200, 1, 1), bits=1))
    found = kept(network, golden("dense/in")[:, :, None, None])["a"]
    assert torch.equal(found["spikes"][:-1], golden("dense/out")[1:])
    assert not golden("dense/out")[0].any()


def resonating(cells, arriving):
    """Spikes [T, N] of resonators from what arrives at both parts, [T, N] each."""
    state, fired = (torch.zeros(arriving[0].shape[1], dtype=torch.int32),) * 2, []
    for x, y in zip(*arriving, strict=True):
        spikes, state = resonate((x, y), state, cells)
        fired.append(spikes)
    return torch.stack(fired).long()


def test_complex_dense():
    given = golden("complex_dense/in")
    into = resonator(period=7, alpha=0.05, decay_bits=12, state_exp=6, vth=1.1, izhikevich=True)
    assert torch.equal(resonating(into, (given, given)), golden("complex_dense/current"))
    parts = [given.double() @ golden(f"complex_dense/weight_{part}").double() for part in ("r", "img")]
    layer = resonator(period=11, alpha=0.05, decay_bits=12, state_exp=6, vth=25)
    fired = resonating(layer, [part.int() for part in parts])
    assert torch.equal(fired[:-1], golden("complex_dense/out")[1:])


def test_tinynets_layer():
    synapses = Synapses(
        source=INPUT, kind="conv", weight=lavas_kernels("tinynet/layer1_kernel"), in_shape=(3, 16, 16), stride=(2, 2)
    )
    bias = torch.from_numpy(np.load(FILES / "gts" / "tinynet" / "layer1_bias.npy").astype(np.int32))
    neurons = LIF(vth=25, dv=1024, bias=bias, bias_exp=6)
    network = alone(neurons, synapses, (24, 6, 6), Input(shape=(3, 16, 16), bits=1))
    found = kept(network, first_image("tinynet/input")[1:])["a"]
    assert torch.equal(found["u"], 64 * first_image("tinynet/current")[1:])
    assert torch.equal(found["spikes"], first_image("tinynet/layer1")[1:])


def test_tinynet_as_a_file():
    network = replace(read(FILES / "tiny.net"), steps=15)
    image = torch.from_numpy(np.load(FILES / "gts" / "tinynet" / "input_bias.npy").T.astype(np.int32))
    found = kept(network, image)
    layers = [found[each.name]["spikes"] for each in network.populations]
    assert torch.equal(layers[0], first_image("tinynet/input")[1:])
    assert torch.equal(layers[-1], first_image("tinynet/output")[1:].flatten(1).view(layers[-1].shape))


def test_tinynets_sigma_delta_layers():
    sent = golden("tinynet_sdnn/input")
    synapses = Synapses(
        source=INPUT,
        kind="conv",
        weight=lavas_kernels("tinynet_sdnn/layer1_kernel"),
        in_shape=(3, 16, 16),
        stride=(2, 2),
    )
    bias = torch.from_numpy(np.load(FILES / "gts" / "tinynet_sdnn" / "layer1_bias.npy").astype(np.int32))
    neurons = SigmaDelta(vth=20, bias=bias, spike_exp=6, state_exp=6)
    network = slowed(alone(neurons, synapses, (24, 6, 6), Input(shape=(3, 16, 16), bits=13, signed=True)))
    wanted = golden("tinynet_sdnn/layer1")
    assert torch.equal(kept(network, sent)["a"]["spikes"][0], wanted[0])
    assert not wanted[1:].any()  # lava-dl ran one step alone
    weight = torch.from_numpy(np.load(FILES / "gts" / "tinynet_sdnn" / "layer2_weight.npz")["data"].astype(np.int32))
    flat = np.load(FILES / "gts" / "tinynet_sdnn" / "layer1.npz")["data"].reshape(-1, 16).T  # as Lava has it: X, Y, C
    dense = Synapses(source=INPUT, kind="dense", weight=weight, in_shape=(864, 1, 1))
    sigma = SigmaDelta(vth=0, activation="unit")
    network = slowed(alone(sigma, dense, (100,), Input(shape=(864, 1, 1), bits=1)))
    frames = torch.from_numpy((flat != 0).astype(np.int32))[:, :, None, None]  # no bits of messages: as spikes
    assert torch.equal(kept(network, frames)["a"]["u"], golden("tinynet_sdnn/layer2"))


def test_pilotnets_sigma_delta_layers_and_output():
    folder = FILES / "gts" / "pilotnet_sdnn"
    network = replace(slowed(read(folder / "network.net")), steps=20)
    image = torch.from_numpy(np.load(folder / "input.npy")[..., 0].T.astype(np.int32))
    found = kept(network, image)
    layers = [found[each.name] for each in network.populations]
    assert torch.equal(layers[0]["u"], golden("pilotnet_sdnn/sigma1"))
    assert torch.equal(layers[1]["u"], golden("pilotnet_sdnn/sigma2"))
    assert torch.equal(layers[-1]["u"][:9], golden("pilotnet_sdnn/output"))
    square = replace(slowed(read(folder / "square_network.net")), steps=20)
    found = kept(square, image[:, :, :33])
    for place, each in enumerate(square.populations, start=1):
        assert torch.equal(found[each.name]["u"], golden(f"pilotnet_sdnn/sigma{place}_square"))
