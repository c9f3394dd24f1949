"""One picture file's bytes -> one uint8 array, or one clear error."""

from __future__ import annotations

import io
import math
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from engram.backbone.data import png
from engram.backbone.data.encoded import FORMATS
from engram.backbone.data.options import PictureOptions
from engram.backbone.errors import UserError, must

_GREY = frozenset({"1", "L", "LA", "La"})
_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How a picture with this orientation is set upright. Source: CIPA DC-008-2019 (Exif 2.32), tag 274."""
_ON_THE_SIDE = frozenset({5, 6, 7, 8})
_TOGETHER = 2**22  # values of pictures that are decoded as one
LARGEST = 4096
"""Pixels that a picture which is not resized may be wide or high."""
_COLOUR = frozenset({"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})


@contextmanager
def bombs_are_errors() -> Iterator[None]:
    """Make Pillow refuse a picture of absurd size instead of warning; enter it outside of threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@dataclass(frozen=True)
class Decoder:
    """Turns every picture of a set into the same shape, or says which one does not fit."""

    in_shape: tuple[int, int, int]
    options: PictureOptions
    first: str
    """The name of the picture that the others are compared with."""

    @classmethod
    def like(cls, blob: bytes | None, name: str, options: PictureOptions) -> Decoder:
        """The decoder for a set whose first picture is ``blob``."""
        with opened(blob, name) as picture:
            width, height = (options.size, options.size) if options.size else upright_size(picture, blob, name)
            if too_large := oversize(width, height, name):
                raise too_large
            return cls((options.channels or channels_of(picture, name), height, width), options, name)

    def decode(self, blob: bytes | None, name: str) -> np.ndarray:
        """``[C, H, W] uint8``.

        Raises:
            UserError: the picture is damaged, or is not of the set's size or colour.
        """
        channels, height, width = self.in_shape
        with opened(blob, name) as picture:
            natural = channels_of(picture, name)
            if self.options.channels is None and natural != channels:
                raise self._odd(
                    "grey like" if channels == 1 else "in colour like",
                    f"a picture of {natural} channels in {name}",
                    f"Make all grey or all colour: --dataset.channels {channels}.",
                )
            turned = orientation(picture, blob, name)
            size = picture.size[::-1] if turned in _ON_THE_SIDE else picture.size
            if self.options.size is None and size != (width, height):
                raise self._odd(
                    f"{width} x {height} pixels like",
                    f"{size[0]} x {size[1]} in {name}",
                    f"Resize all: --dataset.size {width}.",
                )
            load(picture, name)
            mode = "L" if channels == 1 else "RGB"
            fitted = picture if picture.mode == mode else picture.convert(mode)
            if turned in _TURNS:
                fitted = fitted.transpose(_TURNS[turned])
            return self._sized(fitted)

    def decode_alike(self, blobs: Sequence[bytes | None]) -> np.ndarray | None:
        """``[N, C, H, W] uint8``, as `decode` has each of them, where all are plain PNGs of one shape; None else."""
        found = png.header_of(blobs[0])
        if found is None or found[0][0] != self.in_shape[0]:
            return None
        shape, bits = found
        if shape != self.in_shape and self.options.size is None:
            return None
        step = max(_TOGETHER // math.prod(shape), 1)
        held = [png.decode_alike(blobs[start : start + step], shape, bits) for start in range(0, len(blobs), step)]
        alike = [each for each in held if each is not None]
        if len(alike) < len(held):
            return None
        if shape == self.in_shape:
            return np.concatenate(alike)
        pictures = (
            Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
            for part in alike
            for image in part
        )
        return np.stack([self._sized(picture) for picture in pictures])

    def _sized(self, picture: Image.Image) -> np.ndarray:
        channels, height, width = self.in_shape
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        return np.frombuffer(picture.tobytes(), np.uint8).reshape(height, width, channels).transpose(2, 0, 1)

    def _odd(self, rule: str, got: str, next_step: str) -> UserError:
        return must("every picture of the set", f"{rule} the first one ({self.first})", got, next_step)


def looks_whole(blob: bytes) -> bool:
    """Whether a file that `opened` took shows that nothing is missing: every part of a PNG was checked, a JPEG ends."""
    return blob.startswith(png.SIGNATURE) or (blob.startswith(_JPEG) and blob.rstrip(b"\0").endswith(_JPEG_END))


def opened(blob: bytes | None, name: str) -> Image.Image:
    """The picture with its header read; of a PNG all checksums are checked.

    Raises:
        UserError: it is empty, damaged, in no format known, or absurdly large.
    """
    if not blob:
        raise must("a picture", "a readable file", f"an empty one: {name}", "Restore it or take it out of the set.")
    if blob.startswith(png.SIGNATURE):
        try:
            deque(png.chunks(blob), maxlen=0)
        except ValueError as error:
            raise damaged(name, error) from error
    try:
        return Image.open(io.BytesIO(blob), formats=_formats())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = f"at most {Image.MAX_IMAGE_PIXELS:,} pixels"
        raise must("a picture", limit, f"{name} ({error})", "Make it smaller or take it out of the set.") from error
    except Exception as error:  # Pillow's parsers fail in many ways on a damaged file
        raise damaged(name, error) from error


@cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow has; others could run programs (PostScript), or take anything as theirs."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def load(picture: Image.Image, name: str) -> None:
    """Decode.

    Raises:
        UserError: it is damaged.
    """
    try:
        picture.load()
    except Exception as error:  # Pillow's parsers fail in many ways on a damaged file
        raise damaged(name, error) from error


def upright_size(picture: Image.Image, blob: bytes | None, name: str) -> tuple[int, int]:
    """Width and height as it is to be seen."""
    turned = orientation(picture, blob, name)  # which may turn it
    return (picture.height, picture.width) if turned in _ON_THE_SIDE else picture.size


def orientation(picture: Image.Image, blob: bytes | None, name: str) -> int:
    """From 1 (upright) to 8, as the picture's EXIF or XMP has it: how a camera was held. 1 where that is damaged."""
    if picture.format == "PNG" and not png.may_be_turned(blob or b""):
        return 1
    if picture.format in ("PNG", "TIFF"):
        load(picture, name)  # a PNG may say it behind its pixels; a TIFF is turned by Pillow itself, and then upright
    try:
        found = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow's parsers fail in many ways; the pixels are there all the same
        return 1
    return found if found in _TURNS else 1


def channels_of(picture: Image.Image, name: str) -> int:
    """1 for grey, 3 for colour.

    Raises:
        UserError: it has more than 8 bits per channel.
    """
    if picture.mode in _GREY:
        return 1
    if picture.mode in _COLOUR:
        return 3
    raise must(
        "a picture", "8 bits per channel", f"mode {picture.mode} in {name}", "Convert it to 8 bits, grey or RGB."
    )


def oversize(width: int, height: int, name: str) -> UserError | None:
    """The error for pictures that nobody trains on as they are: a few of them would fill the memory."""
    if max(width, height) <= LARGEST:
        return None
    got = f"{width} x {height} in {name}"
    return must("a picture", f"at most {LARGEST} pixels wide and high", got, "Resize all: --dataset.size 224, say.")


def damaged(name: str, why: Exception) -> UserError:
    """The error for a picture that cannot be decoded."""
    reason = "in no format known" if isinstance(why, UnidentifiedImageError) else why
    return must(
        "a picture", "a readable file", f"a damaged one: {name} ({reason})", "Restore it or take it out of the set."
    )
