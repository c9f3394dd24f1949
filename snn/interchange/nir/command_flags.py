"""Flags of ``engram nir``; nothing heavy here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from engram.backbone.contract import Flags


@dataclass(frozen=True, kw_only=True)
class NirFlags(Flags):
    """What other tools will make of a NIR file."""

    target: Literal["norse", "snntorch", "sinabs", "lava", "engram"] | None = None
    """The tool that is to run it. None: each of them."""
    semantics: Literal["file", "nir", "engram", "sinabs", "norse", "snntorch", "lava"] = "file"
    """The tool that made it, whose steps it is meant to be run with; file: what it says of itself, else NIR's own
    equations."""
    dt: Annotated[float, Gt(0)] | None = None
    """Seconds in a step. None: that tool's."""
    steps: Annotated[int, Ge(0), Le(10**5)] = 0
    """Run it for so many steps on random events as well, and compare how many spikes every layer sends."""
    json: bool = False
    """Print one JSON object."""
