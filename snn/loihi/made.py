"""What quantising the layers of a network gives, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from engram.backbone.contract import Row
from engram.snn.loihi.network import Population, Synapses
from engram.snn.loihi.ranges import Layer, Wire
from engram.snn.loihi.rounding import Levels, sqnr


@dataclass
class Made:
    """A network in the making.

    Attributes:
        populations, notes, rows: of the result.
        exact: (population, place of the connection) -> weights before they were rounded, in the units of the integers.
        changed: population -> what rounding added to the weights of each of its connections and to what it gets at
            every step besides, in the units of `Layer`.
    """

    populations: list[Population] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    exact: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    changed: dict[str, tuple[list[Wire], Tensor]] = field(default_factory=dict)

    def synapses(self, layer: Layer, place: int, scale: float, exponent: int, bits: int) -> Synapses:
        """One connection in whole numbers.

        Args:
            scale: whole numbers of weight for 1.
            exponent: what they are shifted by.
        """
        wire = layer.wires[place]
        one, levels = wire.layer, Levels.of(wire.layer.weight, bits)
        rounded = levels.balanced(one.weight, scale)
        changed = replace(one, weight=rounded / scale - one.weight)
        self.changed.setdefault(layer.name, ([], torch.zeros(1)))[0].append(replace(wire, layer=changed))
        self.rows.append(
            {
                "layer": layer.name,
                "source": wire.source,
                "kind": one.kind,
                "weights": one.weight.numel(),
                "bits": bits,
                "exponent": exponent,
                "scale": scale,
                "weights_sqnr_db": sqnr(one.weight, rounded / scale),
            }
        )
        # Lava drops the lowest bit of dense weights of both signs: they are doubled, and shifted by one less.
        twice = 2 if one.kind == "dense" and levels.low < 0 < levels.high else 1
        nearby = (one.weight * scale - rounded).clamp(-0.49, 0.49)
        self.exact[layer.name, place] = (rounded + nearby) * twice
        return Synapses(
            source=wire.source,
            kind=one.kind,
            weight=(rounded * twice).to(torch.int32),
            in_shape=one.in_shape,
            exponent=exponent - (twice - 1),
            weight_bits=bits,
            delay=wire.delay,
            stride=one.stride,
            padding=one.padding,
            dilation=one.dilation,
            groups=one.groups,
        )

    def more(self, layer: Layer, **columns: object) -> None:
        """Add columns to the rows of a layer."""
        self.rows = [{**row, **columns} if row["layer"] == layer.name else row for row in self.rows]  # type: ignore[dict-item]
