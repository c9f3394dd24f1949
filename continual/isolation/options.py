"""Options of the strategies that keep parts of a network for a task; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Lt


@dataclass(frozen=True, kw_only=True)
class XdGOptions:
    """Context-dependent gating."""

    share: Annotated[float, Ge(0), Lt(1)] = 0.8
    """Share of the units of every hidden layer that is silent in a task; at least one unit stays on."""
