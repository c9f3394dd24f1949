"""Which core of a Loihi 2 holds what of a network, what goes between them, and what a step takes.

An estimate before anything is compiled: Lava's compiler for the chip is closed. Cores and memory follow its published
tables (`limits`); time and energy are those of Loihi's (the first) operations, and an order of magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engram.backbone.errors import UserError, must
from engram.snn.loihi.limits import CORES, DELAY_STEPS, ENERGY, NEURONS, TIME, WORDS
from engram.snn.loihi.network import INPUT, LIF, ChipNetwork, Population, Synapses, chip_delay, offsets
from engram.snn.loihi.reach import Reach
from engram.snn.loihi.tiles import Cut, cut


@dataclass(frozen=True)
class Core:
    """One core.

    Attributes:
        layer: whose neurons it holds.
        neurons, words: how many, and words of synaptic memory.
        axons_in: sources that it tells apart: neurons of matrices, cores of convolutions (a message says from where).
        axons_out: what its neurons' messages go by: one for each neuron and matrix, one for each place and convolution.
        synops: synaptic operations of a step; None where no activity is known.
    """

    layer: str
    neurons: int
    words: int
    axons_in: int
    axons_out: int
    synops: float | None

    @property
    def load(self) -> tuple[float, float]:
        """Shares of the neurons and of the words that a core may have."""
        return self.neurons / NEURONS, self.words / WORDS

    @property
    def seconds(self) -> float:
        """What its work in a step takes, all of it one after the other."""
        return (self.synops or 0.0) * TIME.synapse + self.neurons * TIME.update


@dataclass(frozen=True)
class Row:
    """One layer.

    Attributes:
        shape, tile: of the population, and of what a core holds of it.
        cores: how many.
        neurons, words: of its fullest core.
        bits: of its widest weights, as stored.
        offset: steps that its time lies behind the input's.
        delay: the longest wait of what reaches it, in steps on the chip.
        messages: that it sends in a step, and ``copies``, counted once for each core that they go to.
        synops: synaptic operations of a step. Without activity both are None.
        seconds: of its slowest core in a step.
    """

    layer: str
    shape: tuple[int, ...]
    tile: tuple[int, ...]
    cores: int
    neurons: int
    words: int
    bits: int
    offset: int
    delay: int
    messages: float | None
    copies: float | None
    synops: float | None
    seconds: float


@dataclass(frozen=True)
class Mapped:
    """A network on its cores.

    Attributes:
        rows: of the layers, in their order.
        cores: in the order of the layers; the first `CORES` are the first chip's.
        shown: steps that an image is shown for; the next one can follow.
        steps: from its first to its last answer, as every layer is one later than the one before.
        copies_in: messages of a step that enter from outside, once for each core.
        problems: why it does not fit, all of it; empty where it does.
        notes: what fits, and should be known.
    """

    rows: tuple[Row, ...]
    cores: tuple[Core, ...]
    shown: int
    steps: int
    copies_in: float | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def chips(self) -> int:
        """How many are needed."""
        return max(1, math.ceil(len(self.cores) / CORES))

    @property
    def step_seconds(self) -> float:
        """An upper estimate of a step: the slowest core's work, one operation after the other, and a barrier.

        The operations are the first Loihi's. For PilotNet it gives 463 us, where 153 and 183 were measured on Loihi 2.
        """
        return max((core.seconds for core in self.cores), default=0.0) + TIME.barrier

    @property
    def image_seconds(self) -> float:
        """The same of an image, until its last answer."""
        return self.steps * self.step_seconds

    @property
    def joules(self) -> float | None:
        """Of an image, beside what the chip takes when idle; None without activity.

        Synaptic operations, updates, and messages that go one tile far, of the first Loihi. For PilotNet it gives 1.36
        mJ, where 1.09 were measured on Loihi 2.
        """
        if any(row.synops is None for row in self.rows):
            return None
        synops = sum(row.synops or 0.0 for row in self.rows)
        updates = sum(core.neurons for core in self.cores)
        copies = sum(row.copies or 0.0 for row in self.rows) + (self.copies_in or 0.0)
        return self.shown * (synops * ENERGY.synapse + updates * ENERGY.update + copies * ENERGY.hop)

    def check(self) -> None:
        """Raise where the network does not fit.

        Raises:
            UserError: all of its problems, one line each.
        """
        if self.problems:
            raise UserError("\n".join(self.problems))


def map_network(network: ChipNetwork, activity: Mapping[str, float] | None = None, chips: int = 1) -> Mapped:
    """Lay a network out on cores.

    Args:
        network: in the chip's integers.
        activity: messages that all neurons of a population, and the input (`INPUT`), send for one image, by name.
        chips: that there are.
    """
    cuts = {each.name: cut(each) for each in network.populations}
    tiles = {INPUT: (), **{name: each.tiles for name, each in cuts.items()}}
    wires = [
        Wire(one, each.name, Reach(one, tiles[each.name], tiles[one.source]))
        for each in network.populations
        for one in each.synapses
    ]
    sent = None if activity is None else {name: count / network.steps for name, count in activity.items()}
    cores = {each.name: tuple(_cores(each, cuts[each.name], wires, sent)) for each in network.populations}
    rows = tuple(_row(network, each, cuts[each.name], cores[each.name], wires, sent) for each in network.populations)
    return Mapped(
        rows,
        tuple(core for each in cores.values() for core in each),
        network.steps,
        network.steps + max(offsets(network).values()),
        _copies(INPUT, wires, sent),
        tuple(str(error) for error in _problems(network, rows, chips)),
        tuple(_notes(network)),
    )


class Wire(NamedTuple):
    """A connection, what it leads to, and where its messages go."""

    synapses: Synapses
    target: str
    reach: Reach


def _cores(population: Population, cut: Cut, wires: Sequence[Wire], sent: Mapping[str, float] | None) -> Iterator[Core]:
    coming = [wire for wire in wires if wire.target == population.name]
    leaving = [wire.reach for wire in wires if wire.synapses.source == population.name]
    for tile, words in zip(cut.tiles, cut.words, strict=True):
        synops = (
            None
            if sent is None
            else sum(sent.get(wire.synapses.source, 0.0) * wire.reach.share(tile) for wire in coming)
        )
        yield Core(
            population.name,
            tile.neurons,
            words,
            sum(wire.reach.axons_in(tile) for wire in coming),
            sum(reach.axons_out(tile) for reach in leaving),
            synops,
        )


def _row(
    network: ChipNetwork,
    each: Population,
    cut: Cut,
    cores: Sequence[Core],
    wires: Sequence[Wire],
    sent: Mapping[str, float] | None,
) -> Row:
    waits = [_wait(network, each, one) for one in each.synapses]
    return Row(
        each.name,
        each.shape,
        cut.sides,
        len(cores),
        max(core.neurons for core in cores),
        max(core.words for core in cores),
        max(cut.bits, default=0),
        offsets(network)[each.name],
        max(waits, default=0),
        None if sent is None else sent.get(each.name, 0.0),
        _copies(each.name, wires, sent),
        None if sent is None else sum(core.synops or 0.0 for core in cores),
        max(core.seconds for core in cores),
    )


def _copies(name: str, wires: Sequence[Wire], sent: Mapping[str, float] | None) -> float | None:
    if sent is None:
        return None
    return sent.get(name, 0.0) * sum(wire.reach.copies for wire in wires if wire.synapses.source == name)


def _wait(network: ChipNetwork, target: Population, one: Synapses) -> int:
    """The longest way of a message on the chip, in steps."""
    return chip_delay(network, one, target.name) + (0 if one.delays is None else int(one.delays.max()))


def _problems(network: ChipNetwork, rows: Sequence[Row], chips: int) -> Iterator[UserError]:
    for each, row in zip(network.populations, rows, strict=True):
        if row.words > WORDS:
            yield must(
                f"{each.name}: synaptic memory of one core",
                f"at most {WORDS:,} words",
                f"{row.words:,} for a single neuron, {row.words - WORDS:,} too many",
                "Give it fewer inputs (pooling, stride) or fewer weight bits.",
            )
        for one in each.synapses:
            least, most = chip_delay(network, one, each.name), _wait(network, each, one)
            if least < 1 or most > DELAY_STEPS + 1:
                yield must(
                    f"{each.name}: steps from {one.source} on the chip",
                    f"1 to {DELAY_STEPS + 1}",
                    least if least < 1 else most,
                    f"Change its delay by {1 - least if least < 1 else DELAY_STEPS + 1 - most}.",
                )
    needed = sum(row.cores for row in rows)
    if needed > chips * CORES:
        largest = sorted(rows, key=lambda row: row.cores, reverse=True)[:3]
        yield must(
            "a network's cores",
            f"at most {chips * CORES} on {chips} chip{'s' if chips > 1 else ''}",
            f"{needed}, {needed - chips * CORES} too many (" + ", ".join(f"{r.layer} {r.cores}" for r in largest) + ")",
            f"Take {math.ceil(needed / CORES)} chips, or make the largest layers smaller.",
        )


def _notes(network: ChipNetwork) -> Iterator[str]:
    soft = [each.name for each in network.populations if isinstance(each.neurons, LIF) and each.neurons.reset == "soft"]
    if soft:
        yield f"soft reset ({', '.join(soft)}): Lava has no such neuron; the chip needs a neuron program for it"
    for each in network.populations:
        for one in each.synapses:
            wait = chip_delay(network, one, each.name) - 1
            if one.kind == "conv" and wait > 0:
                count = wait * math.prod(one.in_shape)
                yield f"{each.name}: {one.source} waits {wait} steps; {count:,} more neurons have to hand it on"
