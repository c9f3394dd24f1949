"""How many bits each layer needs: what fewer of them cost one layer at a time, and how few will do in all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.contract import Row
from engram.backbone.errors import must
from engram.snn.loihi.network import ChipNetwork
from engram.snn.loihi.quantise_options import QuantiseOptions
from engram.snn.loihi.quantiser import Quantiser
from engram.snn.loihi.simulator import Simulator
from engram.snn.lowering.network import Lowered
from engram.snn.lowering.running import as_input

BITS = (8, 6, 4, 2)


@dataclass(frozen=True)
class Scored:
    """What a network of chip integers makes of labelled images.

    Attributes:
        accuracy: in [0, 1].
        loss: mean cross-entropy.
    """

    accuracy: float
    loss: float


@dataclass(frozen=True)
class Allocation:
    """Bits for every layer.

    Attributes:
        bits: population -> bits of its weights.
        mean_bits: of all weights.
        score: of the network with them.
    """

    bits: Mapping[str, int]
    mean_bits: float
    score: Scored


class Sensitivity:
    """What bits cost, measured on labelled images that are neither trained on nor tested on.

    Args:
        lowered: the network.
        how: options; ``weight_bits`` is where every layer begins.
        calibration: images for ranges, see `engram.snn.loihi.quantiser.quantise`.
        images: [N, C, H, W] (frames: [N, T, C, H, W]), uint8 or floats in [0, 1].
        labels: [N] int64.
        device: where networks are simulated.
    """

    def __init__(
        self,
        lowered: Lowered,
        how: QuantiseOptions,
        calibration: Tensor | None,
        images: Tensor,
        labels: Tensor,
        device: str | torch.device = "cpu",
    ) -> None:
        self.quantiser = Quantiser(lowered, how, calibration)
        self.images, self.labels, self.device = images, labels, device
        self.names = [each.name for each in lowered.populations]
        self.most = how.weight_bits
        self.tried = [bits for bits in BITS if bits < self.most]

    def score(self, network: ChipNetwork) -> Scored:
        """Simulate the images."""
        logits = (
            Simulator(network, self.device).run(network.input.whole(as_input(self.images, torch.float64))).logits[-1]
        )
        right = float((logits.argmax(1) == self.labels).double().mean())
        return Scored(right, float(F.cross_entropy(logits, self.labels)))

    def table(self) -> list[Row]:
        """Rows of ``layer``, ``bits``, ``weights`` (how many), ``accuracy`` and ``loss``, other layers as they begin.

        The first has no layer: nothing has fewer bits there.
        """
        plain = {"layer": "", "bits": self.most, "weights": sum(self.weights.values())}
        return [
            {**plain, "accuracy": self.begin.accuracy, "loss": self.begin.loss},
            *(
                {"layer": name, "bits": bits, "weights": self.weights[name], "accuracy": s.accuracy, "loss": s.loss}
                for (name, bits), s in self.single.items()
            ),
        ]

    def allocate(self, mean_bits: float | None = None, most_lost: float | None = None) -> Allocation:
        """Take bits from layers, at each turn those that cost the least loss for what they save, by `table`.

        Args:
            mean_bits: until weights have no more bits than that on average.
            most_lost: while the network that comes of it loses no more accuracy than that, which is simulated at each
                turn.

        Raises:
            UserError: neither is given, or so few bits cannot be.
        """
        if mean_bits is None and most_lost is None:
            raise must("an allocation of bits", "within mean_bits or most_lost", "neither", "Give one of them.")
        bits = dict.fromkeys(self.names, self.most)
        score = self.begin
        while mean_bits is None or self.mean(bits) > mean_bits:
            turn = self._cheapest(bits)
            if turn is None:
                if mean_bits is not None:
                    remedy = f"The fewest are {self.mean(bits):g}."
                    raise must("mean_bits", "reached with the fewest bits of every layer", mean_bits, remedy)
                break
            then = {**bits, turn[0]: turn[1]}
            if most_lost is not None:
                found = self._with(then)
                if found.accuracy < self.begin.accuracy - most_lost:
                    break
                score = found
            bits = then
        return Allocation(bits, self.mean(bits), self._with(bits) if most_lost is None else score)

    def mean(self, bits: Mapping[str, int]) -> float:
        """The mean of the bits of all weights."""
        return sum(bits[name] * count for name, count in self.weights.items()) / sum(self.weights.values())

    @cached_property
    def begin(self) -> Scored:
        """The network as it begins."""
        return self._with({})

    @cached_property
    def weights(self) -> Mapping[str, int]:
        """Population -> how many weights reach it."""
        found = dict.fromkeys(self.names, 0)
        for row in self.quantiser.quantised({}, noise=False).rows:
            found[str(row["layer"])] += int(row["weights"] or 0)
        return found

    @cached_property
    def single(self) -> Mapping[tuple[str, int], Scored]:
        """(population, bits) -> the network in which nothing else has fewer bits."""
        return {(name, bits): self._with({name: bits}) for name in self.names for bits in self.tried}

    def _with(self, bits: Mapping[str, int]) -> Scored:
        return self.score(self.quantiser.quantised(bits, noise=False).network)

    def _cheapest(self, bits: Mapping[str, int]) -> tuple[str, int] | None:
        """The layer to take bits from next, and how many it then has; None where all have the fewest."""
        steps: Sequence[tuple[str, int]] = [
            (name, max(b for b in self.tried if b < bits[name])) for name in self.names if bits[name] > min(self.tried)
        ]

        def price(turn: tuple[str, int]) -> float:
            name, fewer = turn
            before = self.begin if bits[name] == self.most else self.single[name, bits[name]]
            saved = (bits[name] - fewer) * self.weights[name]
            return (self.single[turn].loss - before.loss) / saved

        return min(steps, key=price, default=None)
