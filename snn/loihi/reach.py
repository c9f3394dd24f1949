"""Which cores' neurons a connection's messages reach, and at how many synapses there: exact, borders included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

from engram.snn.loihi.network import Synapses
from engram.snn.loihi.tiles import Tile


class Reach:
    """One connection between tiles.

    Args:
        synapses: the connection.
        tiles: of the population reached.
        origins: of its source; none of the input.
    """

    def __init__(self, synapses: Synapses, tiles: Sequence[Tile], origins: Sequence[Tile]) -> None:
        self.synapses, self.tiles, self.origins = synapses, tiles, origins
        self._count = math.prod(synapses.in_shape)

    @cached_property
    def copies(self) -> float:
        """Cores that a message goes to, on average over the source's neurons."""
        return sum(math.prod(map(len, self._reaching(tile))) for tile in self.tiles) / self._count

    def share(self, tile: Tile) -> float:
        """Synapses in a tile for each neuron of the source, on average."""
        one = self.synapses
        if one.kind == "dense":
            return float(tile.neurons)
        (begin, to), *sides = tile.ranges
        pairs = [sum(1 for _ in self._pairs(axis, *side)) for axis, side in enumerate(sides)]
        return (to - begin) * one.weight.shape[1] * math.prod(pairs) / self._count

    def axons_in(self, tile: Tile) -> int:
        """Sources that a core must tell apart: neurons of a matrix, cores of a convolution."""
        if self.synapses.kind == "dense":
            return self._count
        reaching = self._reaching(tile)
        return max(1, sum(all(map(_meet, reaching, origin.ranges)) for origin in self.origins))

    def axons_out(self, origin: Tile) -> int:
        """Entries for the messages of a core: one for each neuron into a matrix, one for each place otherwise."""
        if self.synapses.kind == "dense":
            return origin.neurons
        return math.prod(to - begin for begin, to in origin.ranges[1:])

    def _reaching(self, tile: Tile) -> list[set[int]]:
        """What of the source reaches a tile, in every dimension."""
        one = self.synapses
        if one.kind == "dense":
            return [set(range(size)) for size in one.in_shape]
        (begin, to), *sides = tile.ranges
        filters, ins = one.weight.shape[:2]
        each = filters // one.groups
        channels = set(range(begin // each * ins, -(-to // each) * ins))
        return [channels, *(set(self._pairs(axis, *side)) for axis, side in enumerate(sides))]

    def _pairs(self, axis: int, begin: int, to: int) -> list[int]:
        """Places of the source that outputs from one to another see along an axis, once for each kernel place."""
        one = self.synapses
        stride, padding, dilation = one.stride[axis], one.padding[axis], one.dilation[axis]
        seen = (
            out * stride - padding + dilation * k for out in range(begin, to) for k in range(one.weight.shape[2 + axis])
        )
        return [place for place in seen if 0 <= place < one.in_shape[1 + axis]]


def _meet(places: set[int], of: tuple[int, int]) -> bool:
    return any(of[0] <= place < of[1] for place in places)
