"""Options of the data sets made here; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Lt

Seed = Annotated[int, Ge(0), Lt(2**31)]


@dataclass(frozen=True, kw_only=True)
class ColouredOptions:
    """How many digits are coloured, and whether the colour can be seen."""

    environment_images: Annotated[int, Ge(2)] | None = None
    """Images of every environment: the first of all that it has. None: all."""
    grey: bool = False
    """Show every digit in both channels, so that its colour cannot be seen: the grey oracle."""
    seed: Seed = 0
    """Seed of what is drawn by lot, apart from the trial's: which images an environment has, labels and colours."""
