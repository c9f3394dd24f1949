"""Encoded pictures in a fixed order, and those that are files; no torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backbone.errors import must


class Pictures(Protocol):
    """Encoded pictures in a fixed order; holds no open file, so that it can be sent to another process."""

    def __len__(self) -> int: ...
    def name(self, index: int) -> str:
        """What to call a picture in an error: its path, or its table and row."""
        ...

    def read(self, indices: Sequence[int]) -> list[bytes | None]:
        """The encoded bytes; None where there are none. Raises UserError for a file that cannot be read."""
        ...


@dataclass(frozen=True)
class FilePictures:
    """One file per picture."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return str(self.paths[index])

    def read(self, indices: Sequence[int]) -> list[bytes | None]:
        return [self._read(self.paths[index]) for index in indices]

    @staticmethod
    def _read(path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise must("a picture", "a readable file", f"{path} ({error.strerror})", "Restore it.") from error
