"""Options of the datasets made of picture files; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

Duplicates = Literal["keep", "drop", "refuse"]


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """How picture files become tensors."""

    size: Annotated[int, Ge(1), Le(4096)] | None = None
    """Resize every picture to SIZE x SIZE pixels; None: all pictures must have one size already."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for colour; None: as the pictures are."""
    duplicates: Duplicates = "keep"
    """Training images that are test or validation images too, pixel for pixel: keep and count, drop, or refuse."""
