"""Options of Avalanche's strategies; no torch here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AvalancheOptions:
    """A strategy of Avalanche, trained as Avalanche trains it. How many images it keeps is ``--buffer``."""

    arguments: str = ""
    """Further arguments of its constructor, with commas: ewc_lambda=10,mode=online."""
