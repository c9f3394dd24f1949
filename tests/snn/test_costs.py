import pytest
import torch
from torch import fx, nn

from engram.backbone.errors import UserError
from engram.backbone.measures.energy import COST_MODELS, FP32, INT8, Memory, Work
from engram.snn.measures.costs import CAPTION, Analog, analog, costs, operations, spiking_memory
from engram.snn.simulation.counting import Synapses, Tally


def structure_of(**changed):
    values = {
        "fan_out": {"a": torch.full((10,), 20.0, dtype=torch.float64)},
        "relays": frozenset(),
        "input_fan_out": torch.ones(1, 2, 2, dtype=torch.float64),
        "macs": 1000,
        "analog_macs": 400,
        "neurons": 10,
        "analog_driven": 6,
    }
    return Synapses(**{**values, **changed})


REFERENCE = Analog(macs=1000, effective_macs=250.5, memory=Memory(parameters=80, buffers=0, activations=20))


def rows_of(**options):
    memory = Memory(parameters=80, buffers=4, state=64)
    return costs(REFERENCE, structure_of(), memory, [1, 8], [50.0, 4000.0], **options)


def test_prices_are_the_published_ones():
    assert (FP32.mac_pj, FP32.ac_pj, INT8.mac_pj, INT8.ac_pj) == (4.6, 0.9, 0.23, 0.03)
    assert "Horowitz 2014" in FP32.source
    assert "memory traffic" in CAPTION and "zeros skipped" in CAPTION


def test_rows_by_hand():
    ann, skipping, one, eight = rows_of()
    assert (ann["network"], ann["steps"], ann["macs"], ann["acs"], ann["memory_bytes"]) == ("ANN", None, 1000, 0, 100)
    assert ann["energy_nj (45nm fp32)"] == pytest.approx(4.6)
    assert (one["steps"], one["macs"], one["acs"], one["neuron_updates"], one["memory_bytes"]) == (1, 400, 50, 10, 148)
    assert one["energy_nj (45nm fp32)"] == pytest.approx((400 * 4.6 + 60 * 0.9) / 1000)
    assert one["energy_nj (45nm int8)"] == pytest.approx((400 * 0.23 + 60 * 0.03) / 1000)
    assert one["energy_vs_ann (45nm int8)"] == pytest.approx((400 * 0.23 + 60 * 0.03) / 230)
    assert (eight["macs"], eight["neuron_updates"]) == (400, 80)
    assert (skipping["network"], skipping["steps"], skipping["macs"]) == ("ANN, zeros skipped", None, 250.5)
    assert [row["input_layer"] for row in (ann, skipping, one, eight)] == [None, None, "once", "once"]
    for row in (ann, skipping, one, eight):
        of = row["energy_nj (45nm fp32)"]
        assert row["energy_vs_ann (45nm fp32)"] == pytest.approx(of / (1000 * 4.6e-3))
        assert row["energy_vs_ann_zeros_skipped (45nm fp32)"] == pytest.approx(of / (250.5 * 4.6e-3))


def test_every_energy_names_its_model_and_many_steps_cost_more_than_the_analog_network():
    rows = rows_of()
    named = [column for column in rows[0] if "energy" in column]
    assert len(named) == 3 * len(COST_MODELS)
    assert all(any(model.name in column for model in COST_MODELS) for column in named)
    assert [row["energy_vs_ann (45nm fp32)"] < 1 for row in rows[2:]] == [True, False]
    assert rows[0]["energy_vs_ann (45nm fp32)"] == 1


@pytest.mark.parametrize(("input_layer", "expected"), [("once", 400), ("every step", 3200), ("spikes", 0)])
def test_what_the_input_layer_multiplies(input_layer, expected):
    row = rows_of(input_layer=input_layer)[3]
    assert (row["macs"], row["input_layer"]) == (expected, input_layer)


def test_updates_of_leaky_neurons_multiply():
    work = Work(macs=0, acs=0, updates=1000)
    assert (work.energy_nj(FP32), work.energy_nj(FP32, "MAC")) == (pytest.approx(0.9), pytest.approx(4.6))
    plain, leaky = rows_of()[3], rows_of(update="MAC")[3]
    difference = leaky["energy_nj (45nm fp32)"] - plain["energy_nj (45nm fp32)"]
    assert difference == pytest.approx(80 * 3.7 / 1000)


def test_operations_are_averages_over_images():
    tally = Tally(structure_of().fan_out, [1, 2])
    tally.add("a", torch.ones(2, 5, 10))
    assert operations(structure_of(), tally, 5) == [200.0, 400.0]


def test_pools_that_nobody_tallied_are_not_passed_over():
    tally = Tally({**structure_of().fan_out, "pool": torch.ones(4, dtype=torch.float64)}, [1])
    tally.add("a", torch.ones(1, 5, 10))
    with pytest.raises(UserError, match="values of relays must be tallied; got none of pool"):
        operations(structure_of(relays=frozenset({"pool"})), tally, 5)
    tally.add("pool", torch.ones(1, 5, 4))
    assert operations(structure_of(relays=frozenset({"pool"})), tally, 5) == [204.0]


def test_analog_network_by_hand():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten())
    net[0].weight.data.fill_(1.0)
    found = analog(fx.symbolic_trace(net), nn.Linear(32, 3), (1, 4, 4), 77.5)
    assert (found.macs, found.effective_macs) == (2 * 100 + 96, 77.5)
    assert found.memory.parameters == 4 * (18 + 96 + 3)
    assert found.memory.activations == 4 * (32 + 32)  # what goes into the ReLU and what comes out
    assert found.memory.total == found.memory.parameters + found.memory.activations


def test_a_spiking_network_keeps_one_potential_per_neuron_and_the_input_layers_result():
    graph, head = fx.symbolic_trace(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))), nn.Linear(2, 3)
    once = spiking_memory(graph, head, structure_of())
    every = spiking_memory(graph, head, structure_of(), "every step")
    assert (once.state, every.state) == (4 * 16, 4 * 10)
    assert once.parameters == 4 * (18 + 2 + 4 + 9)
    assert once.buffers == 4 * 4 + 8
    assert once.total == once.parameters + once.buffers + once.state
