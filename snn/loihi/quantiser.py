"""From a network in floats to one in the integers of Loihi 2, by rounding after training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engram.backbone.contract import Row
from engram.backbone.errors import UserError, must
from engram.snn.loihi.graded import Graded
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


@torch.no_grad()
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
    bits = bits or {}
    graded_spikes = any(each.cells.kind == "relu" for each in lowered.populations)
    if problems := list(_problems(lowered, images, bits, graded_spikes)):
        raise UserError("\n".join(map(str, problems)))
    found = layers(lowered)
    ranges = None if images is None else seen(lowered, images)
    if graded_spikes:
        assert ranges is not None  # or there was a problem
        made = Graded(how, ranges).made(found, bits)
    else:
        steps = images.shape[1] if images is not None and lowered.frames else lowered.steps
        made = Spiking(how, ranges, steps).made(found, bits)
    encoding = "delta" if graded_spikes else "value"
    network = ChipNetwork(
        input=Input(shape=lowered.in_shape, bits=8, gain=float(LEVELS), encoding=encoding),
        populations=tuple(made.populations),
        steps=lowered.steps,
        delay=lowered.delay,
        frames=lowered.frames,
        notes=tuple(made.notes),
    )
    noise = {} if images is None else drive_noise(lowered, made.changed, images)
    rows = tuple({**row, "drive_sqnr_db": noise[str(row["layer"])]} if noise else row for row in made.rows)
    return Quantised(network, rows, made.exact)


def _problems(
    lowered: Lowered, images: Tensor | None, bits: Mapping[str, int], graded_spikes: bool
) -> Iterator[UserError]:
    names = [each.name for each in lowered.populations]
    if unknown := [name for name in bits if name not in names]:
        yield must(
            "layers with bits of their own", f"some of {', '.join(names)}", ", ".join(unknown), "Leave them out."
        )
    if wrong := {name: each for name, each in bits.items() if not 2 <= each <= 8}:
        yield must("bits of a weight", "2 to 8", wrong, "Use 8.")
    if graded_spikes and images is None:
        yield must("a network of ReLUs", "quantised with calibration images", "none", "Give a hundred training images.")
    if lowered.readout == "last" and (lowered.frames or lowered.steps > 1) and not graded_spikes:
        yield must(
            "the read-out", "a mean over steps", "the last step", "Train a network that is read out by its mean."
        )
