"""From a network in floats to one in the integers of Loihi 2, by rounding after training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engram.backbone.contract import Row
from engram.backbone.errors import UserError, must
from engram.snn.loihi.graded import Graded
from engram.snn.loihi.made import Made
from engram.snn.loihi.network import ChipNetwork, Input
from engram.snn.loihi.noise import drive_noise
from engram.snn.loihi.quantise_options import QuantiseOptions
from engram.snn.loihi.ranges import LEVELS, layers, seen
from engram.snn.loihi.spiking import Spiking
from engram.snn.lowering.network import Lowered


@dataclass(frozen=True)
class Quantised:
    """A network of chip integers and what rounding did.

    Attributes:
        network: the integers.
        rows: one for each connection (`quantise`).
        exact: (population, place of the connection) -> the weights before they were rounded, in their whole numbers'
            units: what `engram.snn.loihi.trainable` begins with.
    """

    network: ChipNetwork
    rows: tuple[Row, ...]
    exact: Mapping[tuple[str, int], Tensor]


def quantise(
    lowered: Lowered, how: QuantiseOptions, images: Tensor | None = None, bits: Mapping[str, int] | None = None
) -> Quantised:
    """Round a network to whole numbers, each layer at the scale that loses least and leaves its range.

    Spiking networks: every population is taken in units of its thresholds, so that one whole number is the threshold of
    all its neurons. Weights are rounded to ``weight_bits``, the largest of them clipped where that loses less than
    coarser steps would, and shifted left as far as sums, potentials, bias and threshold leave room for; thresholds,
    decays and biases then are as fine as the chip has them. Networks of ReLUs become sigma-delta neurons, which need
    images.

    Rows have ``layer``, ``source``, ``kind``, ``weights`` (how many), ``bits``, ``exponent``, ``scale`` (whole numbers
    of weight for 1), ``threshold``, ``bias_exponent``, ``weights_sqnr_db``, ``drive_sqnr_db`` (on the images, what is
    sent to the layer being right), ``largest_drive`` (in whole numbers, on the images), ``drive_bound`` (whatever the
    images), ``limit`` (what it must stay below), and ``decay_error``, ``current_decay_error``.

    Args:
        lowered: a network of `engram.snn.lowering.lower.lower`.
        how: options.
        images: some training images, [N, C, H, W] or frames [N, T, C, H, W], uint8 or floats in [0, 1]; a hundred say
            enough. Without them ranges are bounds.
        bits: population -> bits of its weights in place of ``how.weight_bits``.

    Raises:
        UserError: the chip has no such network; everything that stands against it.
    """
    return Quantiser(lowered, how, images).quantised(bits or {})


class Quantiser:
    """`quantise` of one network again and again, with other bits.

    Args:
        lowered, how, images: see `quantise`.

    Raises:
        UserError: the chip has no such network.
    """

    def __init__(self, lowered: Lowered, how: QuantiseOptions, images: Tensor | None = None) -> None:
        self.lowered, self.how, self.images = lowered, how, images
        self.graded = any(each.cells.kind == "relu" for each in lowered.populations)
        if problems := list(self._problems()):
            raise UserError("\n".join(map(str, problems)))
        self.layers = layers(lowered)
        self.seen = None if images is None else seen(lowered, images)

    @torch.no_grad()
    def quantised(self, bits: Mapping[str, int], noise: bool = True) -> Quantised:
        """The network in whole numbers.

        Args:
            bits: population -> bits of its weights in place of the options'.
            noise: rows say ``drive_sqnr_db``, for which the images are run once more.

        Raises:
            UserError: bits that the chip has not, of layers that there are not, or no room for a layer.
        """
        if problems := list(self._wrong(bits)):
            raise UserError("\n".join(map(str, problems)))
        lowered, made = self.lowered, self._made(bits)
        network = ChipNetwork(
            input=Input(
                shape=lowered.in_shape, bits=8, gain=float(LEVELS), encoding="delta" if self.graded else "value"
            ),
            populations=tuple(made.populations),
            steps=lowered.steps,
            delay=lowered.delay,
            frames=lowered.frames,
            notes=tuple(made.notes),
        )
        rows = made.rows
        if self.images is not None and noise:
            found = drive_noise(lowered, made.changed, self.images)
            rows = [{**row, "drive_sqnr_db": found[str(row["layer"])]} for row in rows]
        return Quantised(network, tuple(rows), made.exact)

    def _made(self, bits: Mapping[str, int]) -> Made:
        if self.graded:
            assert self.seen is not None  # or there was a problem
            return Graded(self.how, self.seen).made(self.layers, bits)
        frames = self.images is not None and self.lowered.frames
        steps = self.images.shape[1] if frames and self.images is not None else self.lowered.steps
        return Spiking(self.how, self.seen, steps).made(self.layers, bits)

    def _problems(self) -> Iterator[UserError]:
        lowered = self.lowered
        if self.graded and self.images is None:
            remedy = "Give a hundred training images."
            yield must("a network of ReLUs", "quantised with calibration images", "none", remedy)
        if lowered.readout == "last" and (lowered.frames or lowered.steps > 1) and not self.graded:
            remedy = "Train a network that is read out by its mean."
            yield must("the read-out", "a mean over steps", "the last step", remedy)

    def _wrong(self, bits: Mapping[str, int]) -> Iterator[UserError]:
        names = [each.name for each in self.lowered.populations]
        if unknown := [name for name in bits if name not in names]:
            rule = f"some of {', '.join(names)}"
            yield must("layers with bits of their own", rule, ", ".join(unknown), "Leave them out.")
        if wrong := {name: each for name, each in bits.items() if not 2 <= each <= 8}:
            yield must("bits of a weight", "2 to 8", wrong, "Use 8.")
