"""Networks in floats as networks of chip integers."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from engram.backbone.errors import UserError
from engram.snn.loihi.network import LIF, SigmaDelta
from engram.snn.loihi.quantise_options import QuantiseOptions
from engram.snn.loihi.quantiser import quantise
from engram.snn.loihi.rounding import Levels, best_scale, current_decay, mantissas, sqnr, voltage_decay
from engram.snn.loihi.simulator import Simulator
from engram.snn.lowering.network import Cells, Connection, Lowered, Population
from engram.snn.lowering.running import run
from engram.snn.neurons.integrate_fire import per_neuron

SHAPE = (2, 8, 8)


def network(cells, steps=5, frames=False):
    """Convolution, pool and convolution, residual; then a read-out."""
    torch.manual_seed(0)

    def fit(layer):
        layer.weight.data *= 3
        return layer.double()

    first = nn.Sequential(fit(nn.Conv2d(2, 4, 3, padding=1)))
    second = nn.Sequential(nn.AvgPool2d(2), fit(nn.Conv2d(4, 4, 3, padding=1)))
    shortcut = nn.Sequential(nn.AvgPool2d(2))
    read = nn.Sequential(nn.Flatten(), fit(nn.Linear(64, 3)))
    populations = (
        Population(name="a", shape=(4, 8, 8), cells=cells, connections=(Connection(source="input", layers=first),)),
        Population(
            name="b",
            shape=(4, 4, 4),
            cells=cells,
            connections=(Connection(source="a", layers=second), Connection(source="a", layers=shortcut)),
        ),
        Population(
            name="out", shape=(3,), cells=Cells(kind="integrator"), connections=(Connection(source="b", layers=read),)
        ),
    )
    return Lowered(in_shape=SHAPE, populations=populations, steps=steps, frames=frames)


def pictures(count=6, frames=None):
    size = (count, *(() if frames is None else (frames,)), *SHAPE)
    return torch.randint(0, 256, size, generator=torch.Generator().manual_seed(5), dtype=torch.uint8)


def simulated(network, images, keep=()):
    return Simulator(network).run(images.int(), keep=keep)


def arrived(one, messages):
    weight = one.weight.double() * 2.0**one.exponent
    return nn.functional.conv2d(messages, weight, None, one.stride, one.padding, one.dilation, one.groups)


CELLS = {
    "soft": Cells(kind="spiking", start=torch.full((1,), 0.5)),
    "hard": Cells(kind="spiking", reset="hard"),
    "leaky": Cells(kind="spiking", reset="hard", decay=0.5),
    "current": Cells(kind="spiking", reset="hard", decay=0.75, synaptic_decay=0.5),
    "refractory": Cells(kind="spiking", reset="hard", decay=0.5, refractory=2),
    "leaky soft": Cells(kind="spiking", decay=0.75, current=torch.full((1,), 0.125)),
    "channels": Cells(kind="spiking", threshold=torch.tensor([1.0, 2.0, 0.5, 1.0]), start=torch.full((4,), 0.25)),
}


@pytest.mark.parametrize("frames", [None, 5])
@pytest.mark.parametrize("name", CELLS)
def test_every_step_of_the_chip_is_one_of_the_floats(name, frames):
    """From the chip's own state and what arrived there, neurons come to the same potential and decide alike."""
    lowered, images = network(CELLS[name], frames=frames is not None), pictures(frames=frames)
    rounded = quantise(lowered, QuantiseOptions(), images)
    found = rounded.network
    assert all(float(row["drive_sqnr_db"] or 0) > 20 for row in rounded.rows)
    run_ = simulated(found, images, keep=("spikes", "u", "v"))
    assert all(each.wrapped == 0 for each in run_.extremes.values())
    cells = CELLS[name]
    shown = images / 255.0 if frames is None else images.transpose(0, 1) / 255.0
    sent = {"input": shown.double().expand(5, -1, -1, -1, -1) if frames is None else shown.double()}
    for each in lowered.populations[:2]:
        chip = found.population(each.name).neurons
        assert isinstance(chip, LIF)
        finer = cells.decay < 1 and cells.reset == "hard"
        unit = 64 * (chip.vth + (1 / 64 if finer else 1)) / per_neuron(cells.threshold, sent["input"][0])
        u, v, fired = (run_.kept[each.name][what].double() for what in ("u", "v", "spikes"))
        sent[each.name] = fired
        before_v, before_u = per_neuron(cells.start.double(), fired[0]).expand_as(fired[0]), torch.zeros_like(fired[0])
        rest = torch.zeros_like(fired[0])
        bias = sum(one.layers(torch.zeros_like(sent[one.source][0])) for one in each.connections)
        synapses = [one for one in found.population(each.name).synapses if one.kind == "conv"]
        whole_sent = {**sent, "input": sent["input"] * 255}
        for t in range(5):
            drive = sum(arrived(one, whole_sent[one.source][t]) for one in synapses) * 64 / unit + bias
            current = cells.synaptic_decay * before_u + drive
            potential = cells.decay * before_v + current + per_neuron(cells.current.double(), fired[0])
            potential = potential.clamp(-(2**23) / unit, 2**23 / unit)
            active, spikes = rest == 0, fired[t] > 0
            threshold = per_neuron(cells.threshold, fired[0]).expand_as(potential)
            quiet = active & ~spikes
            torch.testing.assert_close((v[t] / unit)[quiet], potential[quiet], rtol=0.002, atol=0.003)
            if cells.synaptic_decay:
                torch.testing.assert_close(u[t] / unit, current, rtol=0.002, atol=0.003)
            assert not spikes[~active].any() and (v[t] / unit)[~active].equal(before_v[~active])
            assert (potential[spikes] > threshold[spikes] - 0.003).all()
            assert (potential[quiet] < threshold[quiet] + 0.003).all()
            before_v, before_u = v[t] / unit, u[t] / unit
            rest = torch.where(spikes, float(cells.refractory), (rest - 1).clamp(min=0))
        assert 0.01 < fired.mean() < 0.99


def test_neurons_whose_weights_are_their_threshold_fire_exactly_there():
    """A maximum of spikes (`engram.snn.lowering.operations`)."""
    lowered = network(CELLS["leaky"])
    sums = Connection(source="a", layers=nn.Sequential(nn.AvgPool2d(2, divisor_override=1)))
    pool = Population(name="pool", shape=(4, 4, 4), cells=CELLS["hard"], connections=(sums,))
    first, _, last = lowered.populations
    last = replace(last, connections=(replace(last.connections[0], source="pool"),))
    lowered = replace(lowered, populations=(first, pool, last))
    for bits in (8, 2):
        found = quantise(lowered, QuantiseOptions(weight_bits=bits), pictures()).network
        kept = simulated(found, pictures(), keep=("spikes",)).kept
        sent = kept["a"]["spikes"].float().flatten(0, 1)
        expected = nn.functional.max_pool2d(sent, 2).unflatten(0, (5, -1))
        assert torch.equal(kept["pool"]["spikes"], expected.to(torch.uint8)) and 0.1 < expected.mean() < 0.9


@pytest.mark.parametrize("bits", [8, 4])
def test_a_network_of_relus_sends_changes(bits):
    lowered, images = network(Cells(kind="relu"), steps=1), pictures()
    found = quantise(lowered, QuantiseOptions(weight_bits=bits), images)
    assert all(isinstance(each.neurons, SigmaDelta) for each in found.network.populations)
    assert found.network.input.encoding == "delta"
    expected = run(lowered, images)
    error = (simulated(found.network, images).logits - expected).abs().mean() / expected.abs().mean()
    assert error < (0.03 if bits == 8 else 0.3)


def test_changes_from_frame_to_frame():
    lowered, images = network(Cells(kind="relu"), frames=True), pictures(frames=4)
    expected = run(lowered, images)
    found = simulated(quantise(lowered, QuantiseOptions(), images).network, images).logits
    assert (found - expected).abs().mean() < 0.01 * expected.abs().mean()


def test_neurons_that_never_fire_decide_no_scale():
    """Calibration leaves channels that were silent with a threshold of nearly nothing."""
    lowered, images = network(CELLS["soft"]), pictures()
    quiet = Cells(kind="spiking", threshold=torch.tensor([1.0, 1.0, 1e-4, 1.0]), current=torch.tensor([0, 0, -9.0, 0]))
    first, second, last = lowered.populations
    lowered = replace(lowered, populations=(replace(first, cells=quiet), second, last))
    found = quantise(lowered, QuantiseOptions(), images)
    run_ = simulated(found.network, images, keep=("spikes",))
    plain = simulated(quantise(network(CELLS["soft"]), QuantiseOptions(), images).network, images, keep=("spikes",))
    spikes, expected = (each.kept["a"]["spikes"].double() for each in (run_, plain))
    assert not spikes[:, :, 2].any()
    assert any("a: 1 thresholds" in note for note in found.network.notes)
    assert (spikes != expected)[:, :, [0, 1, 3]].double().mean() < 0.15


def test_a_bias_of_a_current_comes_from_a_neuron_that_always_fires():
    found = quantise(network(CELLS["current"]), QuantiseOptions(), pictures())
    names = [each.name for each in found.network.populations]
    assert names == ["a.bias", "a", "b.bias", "b", "out"]
    kept = simulated(found.network, pictures(), keep=("spikes",)).kept
    assert kept["a.bias"]["spikes"].all()
    assert sum("always fires" in note for note in found.network.notes) == 2


def test_a_soft_reset_is_said_to_be_simulated_only():
    assert (
        sum("simulation only" in note for note in quantise(network(CELLS["soft"]), QuantiseOptions()).network.notes)
        == 1
    )
    notes = quantise(network(CELLS["hard"]), QuantiseOptions()).network.notes
    assert not any("simulation only" in note for note in notes)


@pytest.mark.parametrize("name", ["leaky", "current"])
def test_without_images_no_sum_can_leave_its_range(name):
    """Weights of white pictures alone, and of black ones, are the worst there is."""
    found = quantise(network(CELLS[name]), QuantiseOptions())
    ends = torch.stack([torch.zeros(SHAPE), torch.full(SHAPE, 255.0)]).to(torch.uint8)
    for images in (ends, pictures()):
        extremes = simulated(found.network, images).extremes
        assert all(each.wrapped == 0 for each in extremes.values()) and extremes["out"].clipped == 0
    assert all(float(row["drive_bound"] or 0) <= float(row["limit"] or 0) for row in found.rows)


def test_fewer_bits_lose_more_and_one_layer_may_have_its_own():
    lowered, images = network(CELLS["leaky"]), pictures()
    loss = {}
    for bits in (8, 4, 2):
        rows = quantise(lowered, QuantiseOptions(weight_bits=bits), images).rows
        loss[bits] = [(row["weights_sqnr_db"], row["drive_sqnr_db"]) for row in rows]
    assert all(a > c for a, b in zip(loss[8], loss[4], strict=True) for a, c in zip(a, b, strict=True))
    assert all(a > c for a, b in zip(loss[4], loss[2], strict=True) for a, c in zip(a, b, strict=True))
    mixed = quantise(lowered, QuantiseOptions(), images, {"b": 2})
    assert [row["bits"] for row in mixed.rows] == [8, 2, 2, 8]
    assert mixed.network.population("b").synapses[0].weight.unique().tolist() == [-1, 0, 1]


def test_dense_weights_of_both_signs_are_even():
    found = quantise(network(CELLS["leaky"]), QuantiseOptions()).network
    last = found.populations[-1].synapses[0]
    assert not (last.weight & 1).any() and last.weight.abs().max() > 127
    row = quantise(network(CELLS["leaky"]), QuantiseOptions()).rows[-1]
    assert last.exponent + 1 == row["exponent"]


def test_what_the_chip_has_not_is_said_at_once():
    with pytest.raises(UserError, match=r"(?s)some of a, b, out; got c.*2 to 8"):
        quantise(network(CELLS["hard"]), QuantiseOptions(), None, {"c": 9})
    with pytest.raises(UserError, match="calibration images"):
        quantise(network(Cells(kind="relu")), QuantiseOptions())
    with pytest.raises(UserError, match="read-out must be a mean"):
        quantise(replace(network(CELLS["hard"]), readout="last"), QuantiseOptions())


def test_the_scale_of_weights_loses_least():
    torch.manual_seed(0)
    weight = torch.randn(1, 4000).double()
    for bits in (2, 3, 4, 8):
        levels = Levels.of(weight, bits)
        best = levels.error(weight, best_scale(weight, levels))
        full = levels.error(weight, levels.largest / float(weight.abs().max()))
        tried = min(levels.error(weight, float(scale)) for scale in torch.linspace(0.05, 127, 400))
        assert best <= min(full, tried * 1.1)
    assert Levels.of(weight.abs(), 8) == Levels(0, 255) and Levels.of(-weight.abs(), 4) == Levels(-15, 0)


def test_decays_and_biases_as_the_chip_has_them():
    assert [voltage_decay(kept) for kept in (1.0, 0.5, 0.0)] == [0, 2048, 4095]
    assert [current_decay(kept) for kept in (0.0, 0.5)] == [4095, 2047]
    for values, exponent in (([4095.0, -1.0], 0), ([5000.0, 3.0], 1), ([4095.0 * 128], 7)):
        found = mantissas(torch.tensor(values))
        assert found is not None and found[1] == exponent
        assert (found[0] * 2**exponent - torch.tensor(values)).abs().max() <= 2 ** (exponent - 1)
    assert mantissas(torch.tensor([4097.0 * 128])) is None
    assert sqnr(torch.ones(2, 3), torch.ones(2, 3)) == math.inf
    assert sqnr(torch.ones(2, 2), torch.tensor([[1.1, 0.9], [1, 1]])) == pytest.approx(23.01, abs=0.01)


def test_du_and_dv_of_trained_neurons():
    found = quantise(network(CELLS["current"]), QuantiseOptions(), pictures()).network.population("a").neurons
    assert isinstance(found, LIF) and (found.du, found.dv) == (2047, 1024)


@pytest.mark.parametrize("shape", [(5, 3, 3, 3), (6, 40)])
def test_rounding_keeps_the_sum_of_every_kernel(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    for bits in (3, 8):
        levels = Levels.of(weight, bits)
        scale = levels.largest / float(weight.abs().max())
        found = levels.balanced(weight, scale)
        sums = (found - weight * scale).flatten(2).sum(-1) if len(shape) == 4 else (found - weight * scale).sum(-1)
        assert sums.abs().max() <= 0.5 + 1e-9
        assert (found - weight * scale).abs().max() <= 1 and found.abs().max() <= levels.largest
        assert torch.equal(found, found.round())
