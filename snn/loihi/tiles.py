"""One population cut into the parts that cores hold, as Lava's compiler for Loihi 2 cuts it.

A picture (C, H, W) is cut along x into tiles a power of two wide, the widest that a core holds; along y, and then in
channels, where a column alone is too much. A row of neurons is cut into equal parts, by the factor that it is too
large for one, again and again. Source: the rows of the published table (`limits`); Lava's compiler itself is closed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from torch import Tensor

from engram.snn.loihi.limits import AXON_BITS, INDEX_BITS, LIST_BITS, NEURONS, WORD_BITS, WORDS
from engram.snn.loihi.network import Population, Synapses


@dataclass(frozen=True)
class Tile:
    """Neurons of a population that one core holds: ranges of channels, rows and columns; of a row, of its neurons.

    Attributes:
        ranges: (from, to) of each dimension of the population's shape.
    """

    ranges: tuple[tuple[int, int], ...]

    @property
    def neurons(self) -> int:
        """How many."""
        return math.prod(to - begin for begin, to in self.ranges)


@dataclass(frozen=True)
class Cut:
    """How a population is cut.

    Attributes:
        sides: of a tile, in the order of the population's shape; its width may reach beyond the picture.
        tiles: what each core holds.
        words: of synaptic memory that each takes; more than a core has where not even one neuron fits.
        bits: of a weight of each of its connections.
    """

    sides: tuple[int, ...]
    tiles: tuple[Tile, ...]
    words: tuple[int, ...]
    bits: tuple[int, ...]


def cut(population: Population) -> Cut:
    """A population in tiles that fit into a core, as few as the compiler makes."""
    held = _Held(population)
    sides = _picture(held) if len(population.shape) == 3 else _row(held)
    tiles = tuple(_tiles(population.shape, sides))
    taken = tuple(held.words(tile.neurons, tile.ranges[0]) for tile in tiles)
    return Cut(sides, tiles, taken, held.bits)


def stored_bits(weight: Tensor) -> int:
    """Bits of a weight as the chip stores it: without the zeros that all have at their end, with a sign where needed.

    >>> import torch
    >>> stored_bits(torch.tensor([-20, 18])), stored_bits(torch.tensor([-6, 6])), stored_bits(torch.tensor([0, 255]))
    (5, 3, 8)
    """
    values = weight.long()
    lowest = values & -values
    if not bool(lowest.any()):
        return 1
    shift = int(lowest[lowest > 0].min()).bit_length() - 1
    least, most = int(values.min()) >> shift, int(values.max()) >> shift
    if least >= 0:
        return most.bit_length()
    if most <= 0:
        return (-least).bit_length()
    return max((-least - 1).bit_length(), most.bit_length()) + 1


class _Held:
    """What a population's synapses take in a core."""

    def __init__(self, population: Population) -> None:
        self.shape, self.synapses = population.shape, population.synapses
        self.bits = tuple(stored_bits(one.weight) for one in population.synapses)
        self.dense = any(one.kind == "dense" for one in population.synapses)

    def words(self, neurons: int, channels: tuple[int, int]) -> int:
        """Words for so many neurons, from one channel to another."""
        return sum(_of(one, bits, neurons, channels) for one, bits in zip(self.synapses, self.bits, strict=True))

    def largest(self, sides: Sequence[int]) -> int:
        """Words for the largest tile with such sides."""
        fitted = [min(side, size) for side, size in zip(sides, self.shape, strict=True)]
        return self.words(math.prod(fitted), (0, fitted[0]))


def _picture(held: _Held) -> tuple[int, ...]:
    channels, height, width = held.shape
    sides = [channels, height, 1 << (width - 1).bit_length()]
    while math.prod(sides) > 1:
        over = held.largest(sides) / WORDS
        if over <= 1 and math.prod(sides) <= NEURONS:
            break
        if over > 1 and not held.dense and sides[0] > 1:
            sides[0] = math.ceil(sides[0] / math.ceil(over))  # a kernel is in every tile: only fewer filters are less
        else:
            place = next(place for place in (2, 1, 0) if sides[place] > 1)
            sides[place] = math.ceil(sides[place] / 2)
    return tuple(sides)


def _row(held: _Held) -> tuple[int, ...]:
    count = math.prod(held.shape)
    while count > 1:
        over = max(count / NEURONS, held.largest((count,)) / WORDS)
        if over <= 1:
            break
        count = math.ceil(count / math.ceil(over))
    return (count,)


def _of(one: Synapses, bits: int, neurons: int, channels: tuple[int, int]) -> int:
    """Words of a connection in a core: a list for each source, or for each channel and place in a kernel."""
    if one.kind == "dense":
        bits += INDEX_BITS + (0 if one.delays is None else int(one.delays.max()).bit_length())
        return one.weight.shape[1] * _list(neurons * bits + LIST_BITS)
    filters, ins, height, width = one.weight.shape
    each, found = filters // one.groups, 0
    for group in range(channels[0] // each, -(-channels[1] // each)):
        begin, to = max(channels[0], group * each), min(channels[1], (group + 1) * each)
        found += ins * height * width * _list((to - begin) * bits + one.stride[1] * AXON_BITS)
    return found


def _list(bits: int) -> int:
    return math.ceil(bits / WORD_BITS)


def _tiles(shape: tuple[int, ...], sides: tuple[int, ...]) -> Iterator[Tile]:
    cuts = [
        [(begin, min(begin + side, size)) for begin in range(0, size, side)]
        for size, side in zip(shape, sides, strict=True)
    ]
    for ranges in product(*cuts):
        yield Tile(ranges)
