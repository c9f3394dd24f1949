"""One picture file's bytes -> one uint8 array, or one clear error."""

from __future__ import annotations

import io
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from backbone.data import png
from backbone.data.options import PictureOptions
from backbone.errors import UserError, must

_GREY = frozenset({"1", "L", "LA", "La"})
_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
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
            width, height = (options.size, options.size) if options.size else picture.size
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
            if self.options.size is None and picture.size != (width, height):
                raise self._odd(
                    f"{width} x {height} pixels like",
                    f"{picture.width} x {picture.height} in {name}",
                    f"Resize all: --dataset.size {width}.",
                )
            try:
                picture.load()
            except Exception as error:  # Pillow's parsers fail in many ways on a damaged file
                raise damaged(name, error) from error
            mode = "L" if channels == 1 else "RGB"
            fitted = picture if picture.mode == mode else picture.convert(mode)
            if fitted.size != (width, height):
                fitted = fitted.resize((width, height), Image.Resampling.BILINEAR)
            return np.frombuffer(fitted.tobytes(), np.uint8).reshape(height, width, channels).transpose(2, 0, 1)

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
        return Image.open(io.BytesIO(blob))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = f"at most {Image.MAX_IMAGE_PIXELS:,} pixels"
        raise must("a picture", limit, f"{name} ({error})", "Make it smaller or take it out of the set.") from error
    except Exception as error:  # Pillow's parsers fail in many ways on a damaged file
        raise damaged(name, error) from error


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


def damaged(name: str, why: Exception) -> UserError:
    """The error for a picture that cannot be decoded."""
    reason = "in no format known" if isinstance(why, UnidentifiedImageError) else why
    return must(
        "a picture", "a readable file", f"a damaged one: {name} ({reason})", "Restore it or take it out of the set."
    )
