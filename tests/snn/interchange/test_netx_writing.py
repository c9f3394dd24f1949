"""Networks written as .net files compute the same when read again, and in lava-dl; the rest is refused."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engram.backbone.errors import UserError
from engram.snn.interchange.netx.reading import read
from engram.snn.interchange.netx.writing import write
from engram.snn.loihi.network import (
    INPUT,
    LIF,
    ChipNetwork,
    Input,
    Integrator,
    Population,
    SigmaDelta,
    Synapses,
)
from engram.snn.loihi.simulator import Simulator

pytest.importorskip("h5py")
LAVA_DL = Path(os.environ.get("ENGRAM_LAVA_DL", "/nowhere")) / "bin" / "python"
"""lava-dl 0.6.0 in an environment of its own."""


def whole(generator, shape, least, most):
    return torch.randint(least, most + 1, shape, generator=generator, dtype=torch.int32)


def lif(generator, channels, **more):
    bias = whole(generator, (channels,), -20, 20)
    return LIF(**{"du": 1023, "dv": 300, "vth": 40, "bias": bias, **more})


def spiking(seed, given=None, recurrent=True):
    """Convolutions with strides, padding and groups, a recurrent layer, delays, a sum to read."""
    g = torch.Generator().manual_seed(seed)
    given = given or Input(shape=(2, 7, 6), bits=8, gain=255.0)
    conv = Synapses(
        source=INPUT,
        kind="conv",
        weight=whole(g, (4, 2, 3, 2), -9, 9),
        in_shape=(2, 7, 6),
        stride=(2, 1),
        padding=(1, 0),
    )
    grouped = Synapses(
        source="a", kind="conv", weight=whole(g, (6, 2, 2, 2), -20, 20), in_shape=(4, 4, 5), groups=2, dilation=(1, 2)
    )
    wide = Synapses(source="b", kind="dense", weight=2 * whole(g, (9, 54), -100, 100), in_shape=(6, 3, 3), exponent=-1)
    again = Synapses(source="c", kind="dense", weight=whole(g, (9, 9), -30, 30), in_shape=(9,), delay=1)
    late = Synapses(
        source="c", kind="dense", weight=whole(g, (5, 9), -60, 60), in_shape=(9,), delays=whole(g, (5, 9), 0, 3)
    )
    out = Synapses(source="d", kind="dense", weight=whole(g, (3, 5), -60, 60), in_shape=(5,))
    populations = (
        Population(name="a", shape=(4, 4, 5), neurons=lif(g, 4, vth=900), synapses=(conv,), scale=0.5),
        Population(name="b", shape=(6, 3, 3), neurons=lif(g, 6), synapses=(grouped,)),
        Population(name="c", shape=(9,), neurons=lif(g, 9), synapses=(wide, again) if recurrent else (wide,)),
        Population(name="d", shape=(5,), neurons=lif(g, 5, du=4095, dv=0), synapses=(late,)),
        Population(name="e", shape=(3,), neurons=Integrator(bias=whole(g, (3,), -9, 9)), synapses=(out,), scale=0.25),
    )
    return ChipNetwork(input=given, populations=populations, steps=12, delay=2)


def changing(seed, point=6):
    """Sigma-delta neurons."""
    g = torch.Generator().manual_seed(seed)
    conv = Synapses(source=INPUT, kind="conv", weight=whole(g, (3, 1, 3, 3), -9, 9), in_shape=(1, 6, 6), exponent=point)
    out = Synapses(source="a", kind="dense", weight=whole(g, (4, 48), -9, 9), in_shape=(3, 4, 4))
    cells = {"spike_exp": point, "state_exp": 6}
    populations = (
        Population(
            name="a",
            shape=(3, 4, 4),
            neurons=SigmaDelta(vth=2, bias=whole(g, (3,), -99, 99), **cells),
            synapses=(conv,),
        ),
        Population(name="b", shape=(4,), neurons=SigmaDelta(vth=0, **cells), synapses=(out,), scale=0.1),
    )
    given = Input(shape=(1, 6, 6), bits=8, encoding="delta", gain=64.0)
    return ChipNetwork(input=given, populations=populations, steps=8, frames=True)


def driven():
    """Neurons in the input layer, each with its own place of the image."""
    given = Input(shape=(2, 4, 3), bits=13, signed=True, gain=36.0, offset=34.0)
    one = Synapses(source=INPUT, kind="conv", weight=torch.ones(2, 1, 1, 1).int(), in_shape=(2, 4, 3), groups=2)
    g = torch.Generator().manual_seed(0)
    out = Synapses(source="a", kind="dense", weight=whole(g, (4, 24), -40, 40), in_shape=(2, 4, 3))
    first = Population(name="a", shape=(2, 4, 3), neurons=LIF(dv=1024, vth=25), synapses=(one,))
    last = Population(name="b", shape=(4,), neurons=lif(g, 4), synapses=(out,))
    return ChipNetwork(input=given, populations=(first, last), steps=16, readout="spikes")


NETWORKS = {
    "values": spiking(0),
    "spikes": spiking(1, Input(shape=(2, 7, 6), bits=1)),
    "sigma-delta": changing(2),
    "another point": changing(3, point=4),
    "driven": driven(),
}


def images(network, count, steps=None):
    given = network.input
    shape = (count, *([steps or network.steps] if network.frames else []), *given.shape)
    g = torch.Generator().manual_seed(5)
    least = -40 if given.signed else 0
    return whole(g, shape, least, (1 << min(given.bits, 7)) - 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_read_again_it_computes_the_same(tmp_path, name):
    network = NETWORKS[name]
    told = write(network, tmp_path / "a.net")
    again = read(tmp_path / "a.net")
    assert (again.input, again.steps, again.delay) == (again.input, network.steps, network.delay)
    assert again.input.gain == network.input.gain and [p.name for p in again.populations] == [
        p.name for p in network.populations
    ]
    assert any("input_message_bits=8" in line for line in told) == (name == "values")
    assert any("spike_exp=4" in line for line in told) == (name == "another point")
    shown = images(network, 3)
    first, second = (Simulator(each).run(shown, keep=("v",)) for each in (network, again))
    assert torch.equal(first.logits, second.logits)
    for each, states in first.kept.items():
        assert torch.equal(states["v"], second.kept[each]["v"])
    write(again, tmp_path / "b.net")
    assert (tmp_path / "a.net").read_bytes() == (tmp_path / "b.net").read_bytes()


def test_neurons_without_leaks_fire_alike_in_smaller_numbers(tmp_path):
    biases = torch.tensor([-64, 32, 96, 0]).int()
    network = with_first(spiking(0, Input(shape=(2, 7, 6), bits=1)), du=4095, dv=0, vth=8003, bias=biases)
    network = with_synapses(network, 0, exponent=7)
    write(network, tmp_path / "a.net")
    again = read(tmp_path / "a.net")
    cells = again.populations[0].neurons
    assert cells.vth == 8003 >> 3 and cells.bias.tolist() == [-8, 4, 12, 0]
    shown = images(network, 3)
    first, second = (Simulator(each).run(shown, keep=("spikes",)) for each in (network, again))
    assert torch.equal(first.logits, second.logits)
    for each, states in first.kept.items():
        assert torch.equal(states["spikes"], second.kept[each]["spikes"])


def with_first(network, **more):
    first, *rest = network.populations
    cells = replace(first.neurons, **more)
    return replace(network, populations=(replace(first, neurons=cells), *rest))


def with_synapses(network, place, **more):
    populations = list(network.populations)
    (one, *rest) = populations[place].synapses
    populations[place] = replace(populations[place], synapses=(replace(one, **more), *rest))
    return replace(network, populations=tuple(populations))


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (with_first(spiking(0), reset="soft"), "subtracts its threshold"),
        (with_first(spiking(0), start=torch.tensor([64]).int()), "where potentials of a begin"),
        (with_first(spiking(0), refractory=2), "rests after a spike"),
        (with_first(spiking(0), bias=torch.tensor([3]).int(), bias_exp=4), "biases of a with an exponent of 4"),
        (with_first(spiking(0), bias=torch.tensor([4000]).int(), bias_exp=7), "from 8000 to 8000"),
        (with_first(changing(0), cum_error=True), "changes of a add up"),
        (with_synapses(spiking(0), 2, exponent=-2), "weights of c with an exponent of -2"),
        (with_synapses(spiking(0), 2, exponent=2), "2 binary digits of the states of c"),
        (with_synapses(spiking(0, recurrent=False), 2, delay=63), "delays of c above 62"),
    ],
)
def test_what_is_approximated_is_asked_for_and_listed(tmp_path, network, reason):
    with pytest.raises(UserError, match=f"{reason}.*Allow approximations") as error:
        write(network, tmp_path / "a.net")
    assert "\n" not in str(error.value) and not (tmp_path / "a.net").exists()
    lines = write(network, tmp_path / "a.net", allow_approximate=True)
    assert any(line in str(error.value) for line in lines) and (tmp_path / "a.net").exists()


def skipping():
    network = spiking(0)
    *rest, last = network.populations
    more = Synapses(source="c", kind="dense", weight=torch.ones(3, 9).int(), in_shape=(9,))
    return replace(network, populations=(*rest, replace(last, synapses=(*last.synapses, more))))


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (skipping(), "e, which is reached from d, c and not from d alone"),
        (with_synapses(spiking(0), 1, delay=1), "a delay of 1 steps of the convolution b"),
        (with_synapses(spiking(0), 2, delay=1), "delays of c beside its recurrent synapses"),
        (with_synapses(spiking(0), 4, weight=-torch.ones(3, 5).int()), "none is positive"),
        (with_first(changing(0), activation="unit"), "without a ReLU"),
        (with_first(changing(0), spike_exp=3), "another binary point"),
    ],
)
def test_what_nothing_stands_for_is_never_written(tmp_path, network, reason):
    with pytest.raises(UserError, match=f"{reason}.*Deploy to another target"):
        write(network, tmp_path / "a.net", allow_approximate=True)


def a_step_a_layer(network, steps, neurons_first):
    """The same network in Lava's time, in which each layer lies a step behind the one before, biases included."""
    populations = [
        replace(
            each,
            synapses=tuple(
                one if one.source == each.name or (neurons_first and not place) else replace(one, delay=one.delay + 1)
                for one in each.synapses
            ),
        )
        for place, each in enumerate(network.populations)
    ]
    return replace(network, populations=tuple(populations), frames=True, steps=steps)


@pytest.mark.slow
@pytest.mark.skipif(not LAVA_DL.exists(), reason="ENGRAM_LAVA_DL is not the folder of an environment with lava-dl")
@pytest.mark.parametrize("name", NETWORKS)
def test_lava_dl_computes_the_same(tmp_path, name):
    """Every message of every layer and step, and every state after the last."""
    network, steps = NETWORKS[name], 16
    told = write(network, tmp_path / "a.net")
    options = [word for line in told for word in line.split() if "=" in word]
    options = [word.rstrip(":") for word in options]
    shown = images(replace(network, frames=True), 1, steps)
    np.savez(tmp_path / "in.npz", images=shown[0].numpy())
    script = Path(__file__).with_name("in_lava_dl.py")
    given = [LAVA_DL, "-W", "ignore", script, tmp_path / "a.net", tmp_path / "in.npz", tmp_path / "out.npz", *options]
    done = subprocess.run(list(map(str, given)), capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(tmp_path / "out.npz") as held:
        lava = dict(held)
    late = a_step_a_layer(network, steps, neurons_first=name == "driven")
    run = Simulator(late).run(shown, keep=("spikes", "u", "v"))
    blocks = 1 + max(int(key.partition("/")[2]) for key in lava)
    for place, each in enumerate(network.populations):
        kept, block = run.kept[each.name], place + blocks - len(network.populations)
        sent = kept["spikes"][:, 0].numpy()
        assert (lava[f"out/{block}"].reshape(sent.shape) == sent).all(), each.name
        changes = isinstance(each.neurons, SigmaDelta)
        for ours, theirs in zip("uv", ("sigma", "act") if changes else ("u", "v"), strict=True):
            if f"{theirs}/{block}" in lava:
                assert (lava[f"{theirs}/{block}"].reshape(each.shape) == kept[ours][-1, 0].numpy()).all(), each.name
