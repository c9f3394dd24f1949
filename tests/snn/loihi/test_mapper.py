"""Which core holds what: the published tables row by row, what reaches what counted by force, and what does not fit."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engram.backbone.errors import UserError
from engram.snn.interchange.netx.reading import read
from engram.snn.loihi.limits import NEURONS, WORDS
from engram.snn.loihi.mapper import map_network
from engram.snn.loihi.network import INPUT, LIF, ChipNetwork, Input, Integrator, Population, Synapses
from engram.snn.loihi.reach import Reach
from engram.snn.loihi.tiles import Tile, cut, stored_bits

PILOTNET = Path(os.environ.get("ENGRAM_DATA", "/nowhere")) / "third-party" / "lava-dl" / "gts" / "pilotnet_lif"
LAYERS = [
    ((24, 32, 99), (2, 2), (0, 0), 5),
    ((36, 15, 49), (2, 2), (0, 0), 4),
    ((48, 7, 24), (2, 2), (0, 0), 4),
    ((64, 4, 22), (2, 1), (1, 0), 4),
    ((64, 2, 20), (1, 1), (0, 0), 4),
    ((100,), None, None, 3),
    ((50,), None, None, 4),
    ((10,), None, None, 5),
    ((1,), None, None, 6),
]
"""PilotNet's layers behind its first: shape, stride, padding, bits of a weight."""
TABLE = [
    (13, 3168, 0),
    (25, 3072, 81),
    (13, 2160, 864),
    (3, 2688, 1620),
    (3, 2048, 2160),
    (2, 2048, 2880),
    (12, 8, 7253),
    (1, 50, 1300),
    (1, 10, 150),
    (1, 1, 10),
]
"""Cores; neurons and words of synaptic memory in each of them, on average: as published."""


def weights(shape, bits):
    """Even weights that take so many bits."""
    found = torch.zeros(shape, dtype=torch.int32)
    found.view(-1)[:2] = torch.tensor([-(2**bits), 2])
    return found


def network(*populations, shape=(3, 66, 200), steps=16):
    return ChipNetwork(input=Input(shape=shape), populations=populations, steps=steps, readout="spikes")


def pilotnet(layers=LAYERS):
    made = [Population(name="layer0", shape=(3, 66, 200), neurons=LIF(vth=25), synapses=())]
    for shape, stride, padding, bits in layers:
        before = made[-1]
        ins, count = before.shape[0], int(np.prod(before.shape))
        if stride is None:
            one = Synapses(
                source=before.name, kind="dense", weight=weights((*shape, count), bits), in_shape=before.shape
            )
        else:
            one = Synapses(
                source=before.name,
                kind="conv",
                weight=weights((shape[0], ins, 3, 3), bits),
                in_shape=before.shape,
                stride=stride,
                padding=padding,
            )
        name = f"layer{len(made)}"
        made.append(Population(name=name, shape=shape, neurons=LIF(vth=25), synapses=(one,)))
    return network(*made)


def averages(mapped):
    """(cores, neurons, words) of each row, as the table has them: cut to whole numbers, tiles by their sides."""
    for row in mapped.rows:
        held = [core for core in mapped.cores if core.layer == row.layer]
        sides = int(np.prod(row.tile)) if len(row.tile) == 3 else sum(core.neurons for core in held) // len(held)
        yield row.cores, sides, sum(core.words for core in held) // len(held)


def test_pilotnets_published_table_comes_out_row_by_row():
    mapped = map_network(pilotnet())
    assert list(averages(mapped)) == TABLE
    assert len(mapped.cores) == 74 and mapped.chips == 1 and mapped.problems == ()


def test_the_sigma_delta_networks_layers_take_the_words_that_are_published():
    bits = dict(zip(range(9), (5, 4, 4, 5, 4, 4, 6, 5, 6), strict=True))
    layers = [(*layer[:3], bits[place]) for place, layer in enumerate(LAYERS)]
    found = list(averages(map_network(pilotnet(layers))))[1:]
    assert sum(cores for cores, _, _ in found) == 61
    assert [words for _, _, words in found] == [81, 864, 1620, 2592, 2880, 7253, 1500, 150, 10]


@pytest.mark.data
@pytest.mark.skipif(not PILOTNET.is_dir(), reason="needs lava-dl's files under ENGRAM_DATA")
def test_the_real_file_of_pilotnet_takes_the_cores_and_about_the_energy_that_are_published():
    chip = read(PILOTNET / "network.net")
    kept = ("input", "conv-0", "conv-1", "conv-2", "conv-3", "conv-4", "fc-0", "fc-1", "fc-2")
    sent = [np.load(next(PILOTNET.glob(f"{name}.np*"))) for name in kept]
    counts = [int(np.count_nonzero(each if isinstance(each, np.ndarray) else each["data"])) for each in sent]
    activity = {each.name: count * 16 / 24 for each, count in zip(chip.populations, counts, strict=False)}
    mapped = map_network(chip, {**activity, chip.populations[-1].name: 0.0, INPUT: 0.0})
    published = [cores for cores, _, _ in TABLE]
    assert [row.cores for row in mapped.rows] == published and len(mapped.cores) == 74
    assert [row.words for row in mapped.rows][1:6] == [words for _, _, words in TABLE][1:6]
    shown = mapped.joules * 16 / mapped.shown
    assert 1.09e-3 < shown < 1.5e-3  # 1.09 mJ beside the idle chip's were measured
    assert 153e-6 < mapped.step_seconds < 4 * 153e-6


@pytest.mark.parametrize("values", [[-20, 18], [-6, 6], [0, 255], [-255, 0], [0, 0], [-256, 254], [-3, 0, 5], [12, 4]])
def test_bits_of_a_weight_are_the_fewest_that_hold_all(values):
    found = stored_bits(torch.tensor(values))
    shift = next((k for k in range(9) if any(v >> k & 1 for v in values)), 0)
    if min(values) < 0 < max(values):
        fits = [b for b in range(1, 10) if all(-(1 << b - 1) <= v >> shift < 1 << b - 1 for v in values)]
    else:
        fits = [b for b in range(1, 10) if all(abs(v) >> shift < 1 << b for v in values)]
    assert found == min(fits)


def populations(drawn, count):
    """Random populations of every kind and of very different sizes."""
    for seed in range(count):
        draw = drawn(seed)
        if seed % 3:
            shape = (draw.number(1, 40), draw.number(3, 30), draw.number(3, 120))
            one, out = draw.conv(INPUT, shape)
        else:
            shape, out = (draw.number(1, 3), draw.number(1, 9), draw.number(1, 400)), (draw.number(1, 300),)
            one = draw.dense(INPUT, shape, out)
        yield Population(name="one", shape=out, neurons=LIF(vth=1), synapses=(one,))


def test_every_neuron_is_in_one_core_that_holds_it(drawn):
    for each in populations(drawn, 40):
        found, owners = cut(each), torch.zeros(each.shape)
        for tile, words in zip(found.tiles, found.words, strict=True):
            owners[tuple(slice(*side) for side in tile.ranges)] += 1
            assert tile.neurons <= NEURONS and 0 < words <= WORDS
        assert bool((owners == 1).all())


def test_what_reaches_what_is_what_a_pulse_at_every_place_says(drawn):
    for seed in range(12):
        draw = drawn(seed)
        one, shape = draw.conv(INPUT, (draw.number(1, 4), draw.number(3, 8), draw.number(9, 20)))
        whole = cut(Population(name="one", shape=shape, neurons=LIF(vth=1), synapses=(one,))).tiles
        finer = [Tile(((at, at + 1), *tile.ranges[1:])) for tile in whole for at in range(*tile.ranges[0])]
        count = int(np.prod(one.in_shape))
        pulses = torch.eye(count).view(count, *one.in_shape)
        more = (one.stride, one.padding, one.dilation, one.groups)
        arrived = F.conv2d(pulses, torch.ones_like(one.weight, dtype=torch.float32), None, *more)
        reach = Reach(one, finer, ())
        parts = [arrived[(slice(None), *(slice(*side) for side in tile.ranges))].flatten(1) for tile in finer]
        assert reach.copies == pytest.approx(sum(float((part > 0).any(1).sum()) for part in parts) / count)
        for tile, part in zip(finer, parts, strict=True):
            assert reach.share(tile) == pytest.approx(float(part.sum()) / count)


def test_activity_becomes_messages_operations_time_and_energy():
    dense = Synapses(source=INPUT, kind="dense", weight=weights((30, 20), 4), in_shape=(1, 4, 5))
    again = Synapses(source="a", kind="dense", weight=weights((30, 30), 4), in_shape=(30,), delay=1)
    read = Synapses(source="a", kind="dense", weight=weights((3, 30), 4), in_shape=(30,))
    chip = network(
        Population(name="a", shape=(30,), neurons=LIF(vth=1), synapses=(dense, again)),
        Population(name="b", shape=(3,), neurons=Integrator(), synapses=(read,)),
        shape=(1, 4, 5),
        steps=10,
    )
    mapped = map_network(chip, {INPUT: 50.0, "a": 20.0, "b": 0.0})
    first, second = mapped.rows
    assert (first.messages, first.copies, first.synops) == (2.0, 4.0, 5 * 30 + 2 * 30)
    assert (second.synops, second.offset, second.delay, mapped.copies_in) == (6.0, 2, 1, 5.0)
    assert mapped.shown == 10 and mapped.steps == 12
    assert mapped.step_seconds == pytest.approx(210 * 3.5e-9 + 30 * 8.4e-9 + 465e-9)
    assert mapped.joules == pytest.approx(10 * (216 * 23.6e-12 + 33 * 81e-12 + 9 * 4e-12))
    core = mapped.cores[0]
    assert (core.axons_in, core.axons_out) == (50, 60) and core.load == (30 / NEURONS, first.words / WORDS)
    silent = map_network(chip)
    assert silent.joules is None and silent.rows[0].synops is None and silent.step_seconds < mapped.step_seconds


def test_all_that_does_not_fit_is_said_at_once():
    wide = Synapses(source=INPUT, kind="dense", weight=weights((2, 12_100), 8), in_shape=(1, 110, 110))
    late = Synapses(source="a", kind="dense", weight=weights((9000, 2), 8), in_shape=(2,), delay=70)
    back = Synapses(source="b", kind="dense", weight=weights((2, 9000), 2), in_shape=(9000,), delay=0)
    chip = network(
        Population(name="a", shape=(2,), neurons=LIF(vth=1), synapses=(wide,)),
        Population(name="b", shape=(9000,), neurons=LIF(vth=1), synapses=(late,)),
        Population(name="c", shape=(2,), neurons=LIF(vth=1, reset="soft"), synapses=(back,)),
        shape=(1, 110, 110),
    )
    mapped = map_network(chip)
    assert [problem.partition(" must be ")[0] for problem in mapped.problems] == [
        "a: synaptic memory of one core",
        "b: steps from a on the chip",
    ]
    assert "at most 12,000 words; got 12,100 for a single neuron, 100 too many" in mapped.problems[0]
    assert mapped.notes[0].startswith("soft reset (c)")
    with pytest.raises(UserError, match="12,100"):
        mapped.check()


def test_more_cores_than_there_are_chips_for_is_refused_and_says_which_layers():
    one = Synapses(source=INPUT, kind="conv", weight=weights((64, 1, 3, 3), 8), in_shape=(1, 130, 130))
    big = Population(name="big", shape=(64, 128, 128), neurons=LIF(vth=1), synapses=(one,))
    chip = network(big, shape=(1, 130, 130))
    (problem,) = map_network(chip).problems
    assert problem.startswith("a network's cores must be at most 128 on 1 chip; got 512") and "(big 512)" in problem
    assert "Take 4 chips" in problem and map_network(chip, chips=4).problems == ()
