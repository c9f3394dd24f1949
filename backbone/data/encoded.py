"""Encoded pictures in a fixed order, and those that are files; no torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engram.backbone.data import files
from engram.backbone.data.names import shown

FORMATS: Mapping[str, tuple[str, ...]] = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".mpo",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    "AVIF": (".avif", ".avifs"),
}
"""The formats that are decoded, as Pillow calls them, and how names of such files end."""
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
_PIECE_BYTES = 64 * 2**20


class Pictures(Protocol):
    """Encoded pictures in a fixed order; holds no open file, so that it can be sent to another process."""

    def __len__(self) -> int: ...
    def name(self, index: int) -> str:
        """What to call a picture in an error: its path, or its table and row."""
        ...

    def read(self, indices: Sequence[int]) -> list[bytes | None]:
        """The encoded bytes; None where there are none. Raises UserError for a file that cannot be read."""
        ...


def pieces(pictures: Pictures, count: int) -> Iterator[tuple[range, list[bytes | None]]]:
    """All pictures in order, ``count`` at a time, or fewer (one at least) where those would take over 64 MiB."""
    held: list[bytes | None] = []
    size = 0
    for index in range(len(pictures)):
        held += pictures.read([index])
        size += len(held[-1] or b"")
        if len(held) == count or size >= _PIECE_BYTES or index == len(pictures) - 1:
            yield range(index + 1 - len(held), index + 1), held
            held, size = [], 0


@dataclass(frozen=True)
class FilePictures:
    """One file per picture."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return shown(self.paths[index])

    def read(self, indices: Sequence[int]) -> list[bytes | None]:
        return [files.read(self.paths[index], "a picture") for index in indices]
