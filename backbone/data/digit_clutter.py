"""Digits that occlude one another, or lie under fragments of digits: ``digit-clutter:NAME``, of any set of digits.

Protocol ``engram-digit-clutter/1``, after Spoerer, McClure and Kriegeskorte 2017, with the pictures of a data set in
place of a font. Images are 32x32, of grey 119. A digit is black in a white edge 5/8 pixels wide, and 17 pixels high or
wide without it, whichever is more (`engram.backbone.data.ink`); its middle is up to 9 pixels beside the image's and up
to 6 above or below, uniformly. Clutter: digits of different classes, each painted over those before. Debris: one digit,
and over it fragments, each a square of 6 to 9 pixels out of any digit's box, anywhere in the image: what is neither ink
nor edge in it covers nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engram.backbone.data.columns import PRESENT, indexed
from engram.backbone.data.fingerprint import Fingerprint
from engram.backbone.data.ink import NOTHING, PATCH, Stencils, painted, stencils
from engram.backbone.data.load import load
from engram.backbone.data.lots import below, between, lots
from engram.backbone.data.options import DigitClutterOptions
from engram.backbone.data.sets import Data, MemorySplit, Source, Split
from engram.backbone.errors import must

SIDE = 32
GROUND = 119  # 0x77
ASIDE, ABOVE = 9, 6
"""Farthest that the middle of a digit is from the image's, in pixels."""
SMALLEST, LARGEST = 6, 9
"""Side of a fragment in pixels."""
DIGITS = {"light": 3, "moderate": 4, "heavy": 5}
FRAGMENTS = {"light": 10, "moderate": 30, "heavy": 50}
HELD_OUT = 0.1
"""Share of the other set's training pictures of which the validation images are made."""
_MARGIN = PATCH // 2 + max(ASIDE, ABOVE) - SIDE // 2  # stencils reach beyond the image
_AT_ONCE = 500  # images painted at a time, which stay in the processor's cache


@dataclass(frozen=True)
class Pictures:
    """Pictures that images are made of: their stencils, by class.

    Attributes:
        stencils: of all pictures, those of class 0 first.
        first: [K] int64, the first picture of every class.
        count: [K] int64, how many it has.
    """

    stencils: Stencils
    first: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, split: Split, classes: int) -> Pictures:
        """Those of a split of grey stills."""
        images, labels, _ = zip(*split.batches(torch.arange(len(split)), 4096, "cpu"), strict=True)
        order = torch.cat(labels).argsort(stable=True)
        count = np.bincount(split.labels.numpy(), minlength=classes)
        return cls(stencils(torch.cat(images)[order, 0]), np.cumsum(count) - count, count)


def open_digit_clutter(
    path: str | None, options: DigitClutterOptions | None, *, root: Path, download: bool, budget_bytes: int
) -> Source:
    """Images ``[N, 1, 32, 32]`` of the digits of another dataset, with its classes.

    The images of each part are made of pictures that no other part shows: those to test on of the other set's test
    pictures, those to train and to choose on of nine tenths and a tenth of the rest. An image is a pure function of the
    seed, its part and its number. Its label is the digit in front, painted last, of which nothing but fragments can
    hide anything. The column ``present``, ``[N, K] bool``, says of every class whether one of the digits is of it.

    Args:
        path: the other dataset as it is named everywhere: ``mnist``, ``digits``.
        options: what occludes the digits, and how many images there are.
        root: as for the other dataset, and so ``download``.
        download: whether the other dataset may be fetched.
        budget_bytes: that the images may take.

    Raises:
        UserError: the other dataset cannot be opened, is not one of grey stills, or has too few classes or pictures; or
            the images need more memory than allowed.
    """
    o = options or DigitClutterOptions()
    counts = {"train": o.train_images, "validation": o.validation_images, "test": o.test_images}
    if (size := sum(counts.values()) * SIDE**2) > budget_bytes:
        got, remedy = f"{size / 2**30:.1f} GiB", "Ask for fewer --dataset.train-images."
        raise must("digit-clutter", f"at most {budget_bytes / 2**30:.1f} GiB", got, remedy)
    base = load(path or "", {}, root=root, download=download, validation=HELD_OUT)
    _check(base, o)
    splits = {"train": base.train, "validation": base.validation, "test": base.test}
    keys = lots(np.array([o.seed], np.uint64), len(counts))[0]
    digest = Fingerprint()
    digest.words((*base.classes, "present"))
    parts: dict[str, Split] = {}
    for (name, count), key in zip(counts.items(), keys, strict=True):
        split = splits[name]
        assert split is not None  # a share is held out
        pictures = Pictures.of(split, len(base.classes))
        if lost := [word for word, held in zip(base.classes, pictures.count, strict=True) if not held]:
            got = f"none of {', '.join(map(repr, lost))} for the {name} images"
            raise must(f"pictures of every class of {path!r}", "there for every part", got, "Take a larger set.")
        images, labels, present = made(lots(key[None], count)[0], pictures, o)
        for each in (images, labels, present):
            digest.array(each.numpy())
        parts[name] = MemorySplit(images, labels, {**indexed(count), PRESENT: present})
    return Source(parts, base.classes, digest.hexdigest())


def _check(base: Data, options: DigitClutterOptions) -> None:
    if base.frames is not None or base.in_shape[0] != 1:
        got = "event frames" if base.frames is not None else f"{base.in_shape[0]} channels"
        raise must("digit-clutter:NAME", "the name of a dataset of grey stills", got, "Take mnist, or digits.")
    needed = DIGITS[options.amount] if options.kind == "clutter" else 2
    if len(base.classes) < needed:
        rule = f"of at least {needed} classes, of which an image has {needed}"
        raise must(f"dataset {base.name!r}", rule, len(base.classes), "Ask for less with --dataset.amount.")


def made(keys: np.ndarray, pictures: Pictures, options: DigitClutterOptions) -> tuple[Tensor, Tensor, Tensor]:
    """One image for each of ``keys: [N] uint64``, whatever the others are.

    Returns:
        Images ``[N, 1, SIDE, SIDE] uint8``, the class of the digit in front ``[N] int64``, and which classes are in the
        image, ``[N, K] bool``.
    """
    digits = DIGITS[options.amount] if options.kind == "clutter" else 1
    fragments = FRAGMENTS[options.amount] if options.kind == "debris" else 0
    images = torch.empty(len(keys), 1, SIDE, SIDE, dtype=torch.uint8)
    classes = np.empty((len(keys), digits), np.int64)
    for start in range(0, len(keys), _AT_ONCE):
        span = slice(start, start + _AT_ONCE)
        streams = lots(keys[span], 3 + fragments)  # classes, pictures, places, and a stream for every fragment
        canvas = Canvas(len(streams))
        classes[span] = lots(streams[:, 0], len(pictures.count)).argsort(1, kind="stable")[:, :digits]
        chosen = _picture(lots(streams[:, 1], digits), classes[span], pictures)
        farthest = np.array([ABOVE, ASIDE])
        places = below(lots(streams[:, 2], digits, 2), 2 * farthest + 1) - farthest
        for digit in range(digits):
            canvas.digit(pictures.stencils, chosen[:, digit], places[:, digit])
        for stream in streams[:, 3:].T:
            canvas.fragment(pictures, lots(stream, 6))
        images[span] = canvas.images()
    labels = torch.from_numpy(classes)
    present = torch.zeros(len(keys), len(pictures.count), dtype=torch.bool)
    return images, labels[:, -1].contiguous(), present.scatter_(1, labels, True)


def _picture(lot: np.ndarray, classes: np.ndarray, pictures: Pictures) -> np.ndarray:
    """A picture of each of ``classes``, by lots of the same shape."""
    return pictures.first[classes] + below(lot, pictures.count[classes])


class Canvas:
    """Images that stencils are painted on, one over another."""

    def __init__(self, count: int) -> None:
        self._side = SIDE + 2 * _MARGIN
        self._pixels = torch.full((count, self._side**2), GROUND, dtype=torch.int16)

    def images(self) -> Tensor:
        """``[N, 1, SIDE, SIDE] uint8``, what has been painted so far."""
        whole = self._pixels.view(-1, 1, self._side, self._side)
        return whole[..., _MARGIN:-_MARGIN, _MARGIN:-_MARGIN].to(torch.uint8)

    def digit(self, stencils: Stencils, chosen: np.ndarray, place: np.ndarray) -> None:
        """Paint a digit on every image: which stencil [N], and how far below and beside the middle it is [N, 2]."""
        self._paint(stencils.paint[torch.from_numpy(chosen)], place + (self._side - PATCH) // 2)

    def fragment(self, pictures: Pictures, lot: np.ndarray) -> None:
        """Paint a fragment of any digit anywhere on every image, by six lots ``[N, 6] uint64`` each."""
        stencils = pictures.stencils
        which = _picture(lot[:, 1], below(lot[:, 0], len(pictures.count)), pictures)
        side = between(lot[:, 2], SMALLEST, LARGEST)
        start, extent = stencils.start.numpy()[which], stencils.extent.numpy()[which]
        room = extent - side[:, None]  # none in a narrow digit, whose fragment has its middle
        first = np.where(room < 0, start + room // 2, start + below(lot[:, 3:5], np.maximum(room, 0) + 1))
        place = below(lots(lot[:, 5], 2), SIDE - side[:, None] + 1) + _MARGIN
        self._paint(_squares(stencils.paint, which, first, side), place)

    def _paint(self, paint: Tensor, place: np.ndarray) -> None:
        """Paint stencils ``[N, P, P] int16`` whose first rows and columns lie at ``place: [N, 2]``."""
        corner = torch.from_numpy(place[:, 0] * self._side + place[:, 1])
        places = corner[:, None] + _within(paint.shape[1], self._side)
        pixels = self._pixels.gather(1, places)
        self._pixels.scatter_(1, places, painted(pixels, paint.flatten(1)))


def _squares(paint: Tensor, which: np.ndarray, first: np.ndarray, side: np.ndarray) -> Tensor:
    """Squares ``[M, LARGEST, LARGEST]`` out of stencils, of ``side: [M]`` pixels from ``first: [M, 2]`` on.

    Beyond its side a square changes nothing.
    """
    corner = torch.from_numpy((which * PATCH + first[:, 0]) * PATCH + first[:, 1])
    places = corner[:, None] + _within(LARGEST, PATCH)
    places.clamp_(max=paint.numel() - 1)  # what is there is beyond the side
    found = paint.flatten().index_select(0, places.flatten())  # a third of the time of an index
    inside = torch.arange(LARGEST) < torch.from_numpy(side)[:, None]
    outside = ~(inside[:, :, None] & inside[:, None, :])
    return found.view(-1, LARGEST, LARGEST).masked_fill_(outside, NOTHING)


def _within(side: int, of: int) -> Tensor:
    """Where the pixels of a square are, [side ** 2], from its first one on in an image ``of`` pixels wide."""
    reach = torch.arange(side)
    return (reach[:, None] * of + reach).flatten()
