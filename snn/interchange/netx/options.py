"""Options of the backbone ``netx:FILE``; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le


@dataclass(frozen=True, kw_only=True)
class NetxOptions:
    """A network from a .net file of lava-dl, or of ours."""

    pixels: Literal["unit", "signed"] = "unit"
    """What the file's input layer takes a pixel for: 0 to 1 (files of engram), or -1 to 1 (examples of lava-dl)."""
    steps: Annotated[int, Ge(1), Le(4096)] | None = None
    """Steps of a still image; frames are one step each. None: the file's (tSample), or 32, or 1 for sigma-delta
    neurons."""
