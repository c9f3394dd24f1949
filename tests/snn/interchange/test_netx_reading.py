"""lava-dl's .net files become networks of Loihi's integers, or one sentence says why not."""

import os
from pathlib import Path

import numpy as np
import pytest

from engram.backbone.errors import UserError
from engram.snn.interchange.netx.layers import layers_of
from engram.snn.interchange.netx.reading import network_of, read
from engram.snn.loihi.network import LIF, Integrator, SigmaDelta

FILES = Path(os.environ.get("ENGRAM_DATA", "/nowhere")) / "third-party" / "lava-dl"
LOIHI = {"type": "LOIHI", "iDecay": 1024, "vDecay": 128, "vThMant": 80, "refDelay": 1, "wgtExp": 0}
INPUT = {"type": np.array([b"input"], "S10"), "shape": [2, 5, 4], "weight": np.float32([36]), "bias": np.float32([34])}


def tree(layers, **more):
    """What a file with such layers holds, as the reader of HDF5 gives it."""
    held = {"layer": {str(number): plain(layer) for number, layer in enumerate(layers)}}
    return {**held, "simulation": plain(more)} if more else held


def plain(group):
    return {name: plain(value) if isinstance(value, dict) else values(value) for name, value in group.items()}


def values(value):
    if isinstance(value, np.ndarray) and value.dtype.kind == "S":
        return value.astype(str).astype(object)
    return value if isinstance(value, str) else np.array(value)


def made(layers, **more):
    return network_of(layers_of(tree(layers, **more), "a.net"), "a.net")


def conv(**more):
    weight = np.arange(3 * 2 * 3 * 2).reshape(3, 2, 3, 2, 1) - 9.0
    given = {"type": np.array([b"conv"], "S10"), "weight": weight, "stride": [2, 1], "padding": [1, 0], "neuron": LOIHI}
    return {**given, "shape": [3, 3, 3], "dilation": 1, "groups": 1, "bias": np.float32([1, -2, 3]), **more}


def dense(out, ins, **more):
    return {"type": np.array([b"dense"], "S10"), "shape": [out, 1, 1], "weight": np.ones((out, ins)), **more}


def test_a_file_of_every_layer():
    flatten = {"type": np.array([b"flatten"], "S10"), "shape": [1, 1, 27]}
    again = dense(6, 27, neuron=LOIHI, bias=np.arange(6.0), weight_rec=np.eye(6))
    again["type"] = np.array([b"dense_rec"], "S10")
    layers = [INPUT | {"neuron": LOIHI}, conv(), flatten, again, dense(4, 6, delay=np.arange(4), neuron=LOIHI)]
    layers.append({"type": "average", "shape": [2]})
    found = made(layers, tSample=12, Ts=1)
    assert (found.input.shape, found.input.gain, found.input.offset) == ((2, 5, 4), 36, 34)
    assert (found.steps, found.readout) == (12, "potential")
    first, second, third, fourth, last = found.populations
    assert first.neurons == LIF(du=4095, dv=128, vth=80, bias=first.neurons.bias, start=first.neurons.start)
    assert second.neurons.du == 1023 and second.neurons.bias.tolist() == [1, -2, 3]
    (kernels,) = second.synapses
    assert (kernels.stride, kernels.padding, tuple(kernels.weight.shape)) == ((2, 1), (1, 0), (3, 2, 3, 2))
    assert kernels.weight.flatten().tolist() == list(range(-9, 27))
    assert [one.source for one in third.synapses] == ["layer1", "layer3"] and third.synapses[1].delay == 1
    assert fourth.synapses[0].delays[:, 0].tolist() == [0, 1, 2, 3]
    assert isinstance(last.neurons, Integrator) and last.synapses[0].weight.tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]


def test_pooling_and_inputs_without_neurons():
    pool = {"type": "pool", "shape": [2, 2, 2], "kernelSize": [2, 2], "stride": 2, "weight": [[30]], "neuron": LOIHI}
    found = made([INPUT | {"messageBits": 8}, pool, dense(3, 8)])
    assert (found.input.bits, found.steps, len(found.notes)) == (8, 32, 1)
    pooled = found.populations[0].synapses[0]
    assert (pooled.groups, pooled.weight.tolist()) == (2, [[[[30, 30], [30, 30]]]] * 2)
    assert isinstance(found.populations[1].neurons, Integrator)
    alone = made([dense(3, 8, inFeatures=8, neuron=LOIHI)])
    assert (alone.input.shape, alone.input.bits, alone.readout) == ((8, 1, 1), 1, "spikes")


def test_sigma_delta():
    sdnn = {"type": "SDNN", "vThMant": 3, "activation": "relu"}
    layers = [{"type": "input", "shape": [1, 4, 4], "neuron": sdnn}, dense(3, 16, neuron=sdnn, bias=[900, -900, 5000])]
    layers.append(dense(2, 3, neuron=sdnn | {"sigma_output": True}))
    found = made(layers)
    assert (found.input.encoding, found.input.gain, found.steps) == ("delta", 64, 1)
    first, second, last = (each.neurons for each in found.populations)
    assert isinstance(second, SigmaDelta) and (second.vth, second.spike_exp, second.state_exp) == (3, 6, 6)
    assert (first.activation, second.activation, last.activation, last.vth) == ("unit", "relu", "unit", 0)
    assert found.populations[0].synapses[0].exponent == 12


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([], "layer must be groups 0, 1, 2 and so on; got nothing"),
        ([INPUT], "at least one layer with weights"),
        ([INPUT, {"type": "concat"}], "layer/1/type must be one of"),
        ([conv()], "layer/0/type must be an input layer"),
        ([INPUT, INPUT], "another than input"),
        ([INPUT, conv(neuron={"type": "RF_PHASE"})], "resonate-and-fire neurons are not supported"),
        ([INPUT, conv(neuron=LOIHI | {"wgtExp": 1})], "wgtExp must be 0"),
        ([INPUT, conv(neuron=LOIHI | {"gradedSpike": True})], "gradedSpike must be off"),
        ([INPUT, conv(neuron=LOIHI | {"iDecay": 5000})], "iDecay must be whole numbers from 1 to 4096; got 5000"),
        ([INPUT, conv(bias=[1, 2])], "bias must be 3 numbers"),
        ([INPUT, conv(bias=[1, 2, 5000])], "bias must be whole numbers from -4096 to 4095; got 5000"),
        ([INPUT, conv(weight=np.full((3, 2, 3, 2), 0.5))], "weight must be whole numbers"),
        ([INPUT, conv(weight=np.full((3, 2, 3, 2), np.nan))], "weight must be whole numbers"),
        ([INPUT, conv(weight=np.ones((3, 1, 3, 2)))], "for the 2 channels before"),
        ([INPUT, conv(shape=[3, 3, 4])], r"shape must be \[3, 3, 3\]"),
        ([INPUT, conv(stride=0)], "stride must be whole numbers from 1"),
        ([INPUT, conv(delay=[1, 1, 1])], "where Lava ignores it"),
        ([INPUT, dense(3, 12)], r"weight must be \[3, 40\]"),
        ([INPUT, dense(3, 40, weight={"real": 1, "imag": 1})], "complex weights"),
        ([INPUT, dense(3, 40, weight=np.full((3, 40), 300))], "from -256 to 255"),
        ([INPUT, dense(3, 40, delay=[1, 63, 2])], "from 0 to 62"),
        ([INPUT, dense(3, 40), dense(2, 3)], "one that sends"),
        ([INPUT, dense(3, 40, neuron=LOIHI | {"vThMant": 1 << 17})], "a sum without leaks"),
        ([INPUT, dense(3, 40, neuron=LOIHI), conv()], "dense behind a dense layer"),
        ([INPUT, {"type": "average", "shape": [7]}], "a number of groups"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_run_exactly_is_refused(layers, reason):
    with pytest.raises(UserError, match=reason) as error:
        made(layers)
    assert "\n" not in str(error.value)


def test_a_file(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.net", "w") as file:
        for number, layer in enumerate([INPUT | {"neuron": LOIHI}, conv()]):
            for name, value in layer.items():
                for inner, one in value.items() if isinstance(value, dict) else [("", value)]:
                    file[f"layer/{number}/{name}/{inner}".rstrip("/")] = one
    found, expected = read(tmp_path / "a.net"), made([INPUT | {"neuron": LOIHI}, conv()])
    assert [each.shape for each in found.populations] == [each.shape for each in expected.populations]
    assert found.populations[1].synapses[0].weight.equal(expected.populations[1].synapses[0].weight)
    (tmp_path / "b.net").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(UserError, match="not an HDF5 file"):
        read(tmp_path / "b.net")


@pytest.mark.data
@pytest.mark.skipif(not FILES.exists(), reason="no files of lava-dl under ENGRAM_DATA")
def test_files_of_lava_dl_are_read():
    tiny = read(FILES / "tiny.net")
    assert (tiny.input.shape, tiny.steps, tiny.readout) == ((3, 16, 16), 64, "spikes")
    pilot = read(FILES / "gts/pilotnet_lif/network.net")
    fourth = pilot.population("layer4")
    assert (fourth.synapses[0].stride, fourth.synapses[0].padding, fourth.shape) == ((2, 1), (1, 0), (64, 4, 22))
    assert isinstance(pilot.populations[-1].neurons, Integrator) and pilot.readout == "potential"
    for name, shape in [("network", (1,)), ("square_network", (64, 2, 2))]:
        assert read(FILES / f"gts/pilotnet_sdnn/{name}.net").populations[-1].shape == shape
