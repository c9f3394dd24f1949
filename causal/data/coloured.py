"""Digits whose colour tells the label better than their shape, and in the last environment the other way round.

Two protocols of one idea, told apart by name, as their figures are no more comparable than their networks are.

``coloured-mnist:irm``, Arjovsky, Bottou, Gulrajani and Lopez-Paz 2019 (arXiv 1907.02893), section 5.2. Of MNIST's
training images the first 50,000, in a random order, are two environments, every other image in each: ``e=0.2`` and
``e=0.1``. The last 10,000 are the test part, ``e=0.9``; MNIST's own test images are not used. Of an image every other
row and column is left out, which leaves 14x14.

``coloured-mnist:domainbed``, Gulrajani and Lopez-Paz 2021 (arXiv 2007.01434). All 70,000 images of MNIST, test images
included, in a random order, are three environments, every third image in each: ``+90%``, ``+80%`` and ``-90%``, with e
of 0.1, 0.2 and 0.9. Images have 28x28 pixels. There is one part: whoever trains holds one environment out to test on,
and some images of the others to choose on; DomainBed a fifth of each.

In both the label is whether the digit is below 5, and wrong for a quarter of the images. The colour is the label, but
the other one for a share e. An image has two channels, red and green, of which one is the digit and one is black.

``coloured-digits:irm`` and ``coloured-digits:domainbed`` do the same to the 1,797 digits of 8x8 that are always there,
with five sixths and a sixth of their training images in place of 50,000 and 10,000, and with all their pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from engram.backbone.data.columns import ENVIRONMENT, GROUP, Column, identify, indexed
from engram.backbone.data.corruptions.draws import Draws
from engram.backbone.data.fingerprint import Fingerprint
from engram.backbone.data.load import open_source
from engram.backbone.data.sets import MemorySplit, Source, Split
from engram.backbone.data.subgroups import subgroups
from engram.backbone.seeding import derive
from engram.causal.data.checking import require_protocol
from engram.causal.data.known import DOMAINBED, IRM_TEST, IRM_TRAIN
from engram.causal.data.options import ColouredOptions

CLASSES = ("5 to 9", "0 to 4")
COLOURS = ("red", "green")
"""Of the first and the second channel; for the first and the second class but for a share e."""
LABEL_NOISE = 0.25
"""Share of the images whose label is the other one."""
COLOUR, DIGIT = "colour", "digit"
"""Columns: the name of an image's colour, and which digit it shows."""
_SMALL = 16  # pictures so small keep all their pixels
_NUMERATOR, _DENOMINATOR = 5, 6  # of MNIST's training images the first 50,000


@dataclass(frozen=True)
class Digits:
    """Digits that are to be coloured, and what has been drawn for each of them.

    Attributes:
        images: [N, 1, H, W] uint8.
        digits: [N] int64, 0 to 9.
        chance: [N, 3] float64 in (0, 1), for the order, the label and the colour.
    """

    images: Tensor
    digits: Tensor
    chance: Tensor

    @classmethod
    def of(cls, parts: Sequence[Split], key: int) -> Digits:
        """Those of several splits, one after another; ``key`` decides what is drawn."""
        found = [next(split.batches(torch.arange(len(split)), len(split), "cpu")) for split in parts]
        images, labels = (torch.cat([each[field] for each in found]) for field in (0, 1))
        return cls(images, labels, Draws.of(key, torch.arange(len(labels))).uniform(3))

    def shuffled(self, stop: int) -> Tensor:
        """The first ``stop`` in a random order, ``[stop] int64``."""
        return self.chance[:stop, 0].argsort(stable=True)

    def coloured(self, rows: Tensor, shares: dict[str, float], options: ColouredOptions) -> MemorySplit:
        """The digits at ``rows: [M] int64``, which go to the environments in turn.

        Every image is a function of its digit, its environment and the seed, whatever the others are.
        """
        if options.environment_images is not None:
            rows = rows[: options.environment_images * len(shares)]
        which = torch.arange(len(rows)) % len(shares)
        share = torch.tensor([*shares.values()], dtype=torch.float64)[which]
        chance, digits = self.chance[rows], self.digits[rows]
        labels = (digits < 5) ^ (chance[:, 1] < LABEL_NOISE)
        green = labels ^ (chance[:, 2] < share)
        shown = torch.stack((~green, green), 1) | options.grey
        images = self.images[rows] * shown[:, :, None, None]
        colours = tuple(COLOURS[colour] for colour in green.tolist())
        names = [*shares]
        columns: dict[str, Column] = {
            **indexed(len(rows)),
            ENVIRONMENT: tuple(names[place] for place in which.tolist()),
            COLOUR: colours,
            GROUP: subgroups(CLASSES, labels.long(), colours),
            DIGIT: digits,
        }
        return MemorySplit(images, labels.long(), columns)


def open_coloured(
    source: str, path: str | None, options: ColouredOptions | None, *, root: Path, download: bool, budget_bytes: int
) -> Source:
    """Digits in two colours by one of two protocols, which this module describes; ``[N, 2, H, W]`` in two classes.

    Columns: ``environment`` (its name), ``colour`` (``red``, ``green``), ``group`` (class and colour) and ``digit``.
    With fewer images an environment has the first of those that it would have. What is drawn differs from what the
    papers drew, by lot too, and is the same on every machine.

    Args:
        source: the digits: ``mnist`` or ``digits``.
        path: the protocol, ``irm`` or ``domainbed``.
        options: how many images, and whether their colour is seen.
        root: as for the digits, and so ``download``.
        download: whether the digits may be fetched.
        budget_bytes: concerns nothing: the digits are held in memory.

    Raises:
        UserError: there is no such protocol, or the digits cannot be read.
    """
    require_protocol(source, path)
    o = options or ColouredOptions()
    base = open_source(source, {}, root=root, download=download)
    key = derive(o.seed, f"coloured/{path}")
    parts: dict[str, Split] = {}
    if path == "irm":
        held = _halved(Digits.of([base.train], key))
        stop = len(held.digits) * _NUMERATOR // _DENOMINATOR
        parts["train"] = held.coloured(held.shuffled(stop), IRM_TRAIN, o)
        parts["test"] = held.coloured(torch.arange(stop, len(held.digits)), IRM_TEST, o)
    else:
        held = Digits.of([*base.parts.values()], key)
        parts["train"] = held.coloured(held.shuffled(len(held.digits)), DOMAINBED, o)
    digest = Fingerprint()
    digest.words((base.fingerprint, *CLASSES, *parts))
    for part in parts.values():
        assert isinstance(part, MemorySplit)
        digest.array(part.images.numpy())
        digest.array(part.labels.numpy())
        identify(digest, part.columns)
    return Source(parts, CLASSES, digest.hexdigest())


def _halved(held: Digits) -> Digits:
    """Every other row and column, but of pictures that are small already."""
    if held.images.shape[-1] <= _SMALL:
        return held
    return Digits(held.images[..., ::2, ::2], held.digits, held.chance)


open_coloured_mnist = partial(open_coloured, "mnist")
open_coloured_digits = partial(open_coloured, "digits")
