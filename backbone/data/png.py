"""PNG files: their checksums, and many of one shape decoded at once."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2
_CHANNELS = {_GREY: 1, _RGB: 3, 4: 1, 6: 3}  # 4 and 6 are the same with transparency
_HEADER_START = b"\0\0\0\x0dIHDR"
_HEADER_END = len(SIGNATURE) + 12 + 13
_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_TURNING_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")


def chunks(blob: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield kind and content of every chunk up to the end, each checked against its CRC.

    Pillow does not check those of the pixels, and would hand over a picture with flipped bytes.

    Raises:
        ValueError: the file is damaged.

    Source: ISO/IEC 15948:2003, section 5.3.
    """
    view, at, kind = memoryview(blob), len(SIGNATURE), b""
    while kind != b"IEND":
        stop = at + 8 + int.from_bytes(view[at : at + 4])
        if stop + 4 > len(blob):
            raise ValueError("it ends too early")
        if zlib.crc32(view[at + 4 : stop]) != int.from_bytes(view[stop : stop + 4]):
            raise ValueError("its checksum is wrong")
        kind = bytes(view[at + 4 : at + 8])
        yield kind, view[at + 8 : stop]
        at = stop + 4


def may_be_turned(blob: bytes) -> bool:
    """Whether an undamaged PNG says how to turn it before it is shown, by EXIF or XMP."""
    return _turning(list(chunks(blob)))


def _turning(found: Sequence[tuple[bytes, memoryview]]) -> bool:
    return any(
        kind == b"eXIf" or (kind in _TEXTS and bytes(data[:32]).startswith(_TURNING_TEXTS)) for kind, data in found
    )


def plain_shape(blob: bytes) -> tuple[int, int, int] | None:
    """Channels without transparency, height and width of an undamaged, upright PNG of 8 bits; None for any other file.

    Many times faster than to let Pillow open it.
    """
    if not blob.startswith(SIGNATURE + _HEADER_START) or len(blob) < _HEADER_END:
        return None
    width, height, bits, colour = struct.unpack_from(">IIBB", blob, len(SIGNATURE + _HEADER_START))
    if bits != 8 or colour not in _CHANNELS or width * height > (Image.MAX_IMAGE_PIXELS or 0):
        return None
    try:
        found = list(chunks(blob))
    except ValueError:
        return None
    plain = any(kind == b"IDAT" for kind, _ in found) and not _turning(found)
    return (_CHANNELS[colour], height, width) if plain else None


def header_of(blob: bytes | None) -> tuple[tuple[int, int, int], int] | None:
    """Channels, height and width, and bits of a value, as a PNG that `decode_alike` may take says; None for any other.

    The rest of the file is not looked at.
    """
    if not blob or not blob.startswith(SIGNATURE + _HEADER_START) or len(blob) < _HEADER_END:
        return None
    width, height, bits, colour = struct.unpack_from(">IIBB", blob, len(SIGNATURE + _HEADER_START))
    fits = (bits, colour) in ((1, _GREY), (8, _GREY), (8, _RGB)) and 0 < width * height <= (Image.MAX_IMAGE_PIXELS or 0)
    return ((_CHANNELS[colour], height, width), bits) if fits else None


def decode_alike(blobs: Sequence[bytes | None], in_shape: tuple[int, int, int], bits: int = 8) -> np.ndarray | None:
    """Decode pictures that are all plain PNG of one shape, ``[N, C, H, W] uint8``; None when one is not.

    ``bits`` of a value are 8, or 1 in black and white.

    Their rows become one tall picture, with an empty row between two so that no row is predicted from another
    picture, and Pillow decodes that: for small pictures nearly all of its time goes into opening the file.
    """
    channels, height, width = in_shape
    head = SIGNATURE + _header(channels, height, width, bits)
    stride = 1 + (width * channels * bits + 7) // 8
    rows: list[bytes] = []
    for blob in blobs:
        pixels = _rows(blob, head, height * stride)
        if pixels is None:
            return None
        rows += pixels, bytes(stride)
    tall = SIGNATURE + _header(channels, len(blobs) * (height + 1), width, bits)
    tall += _chunk(b"IDAT", zlib.compress(b"".join(rows), level=0)) + _chunk(b"IEND", b"")
    try:
        with Image.open(io.BytesIO(tall)) as picture:
            values = picture if bits == 8 else picture.convert("L")
            flat = np.frombuffer(values.tobytes(), np.uint8)
    except (OSError, SyntaxError, ValueError):  # a filter that does not exist, say; alone, the picture gets its error
        return None
    return flat.reshape(len(blobs), height + 1, width, channels)[:, :height].transpose(0, 3, 1, 2)


def _rows(blob: bytes | None, head: bytes, length: int) -> bytes | None:
    """The filtered rows of a picture with this header, or None for any other file."""
    if not blob or not blob.startswith(head):
        return None
    try:
        found = list(chunks(blob))
        if any(kind == b"acTL" for kind, _ in found) or _turning(found):  # animated, or perhaps not upright
            return None
        inflate = zlib.decompressobj()
        rows = inflate.decompress(b"".join(data for kind, data in found if kind == b"IDAT"), length + 1)
    except (ValueError, zlib.error):
        return None
    return rows if len(rows) == length else None


def _header(channels: int, height: int, width: int, bits: int) -> bytes:
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, _GREY if channels == 1 else _RGB, 0, 0, 0))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
