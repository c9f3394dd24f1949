"""Options of the strategies that keep parts of a network for a task; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Lt


@dataclass(frozen=True, kw_only=True)
class XdGOptions:
    """Context-dependent gating."""

    share: Annotated[float, Ge(0), Lt(1)] = 0.8
    """Share of the units of every hidden layer that is silent in a task; at least one unit stays on."""


@dataclass(frozen=True, kw_only=True)
class PackNetOptions:
    """Prune, freeze, go on."""

    prune: Annotated[float, Gt(0), Lt(1)] = 0.75
    """Share of the free weights of every layer that a task leaves to those that may follow, the last one too."""
    retrain: Annotated[float, Ge(0), Lt(1)] = 0.33
    """Share of a task's steps that come after the pruning, to make up for it."""


@dataclass(frozen=True, kw_only=True)
class HATOptions:
    """Hard attention to the task."""

    s_max: Annotated[float, Gt(1)] = 400.0
    """Steepness of the gates at the end of an epoch and in tests."""
    c: Annotated[float, Ge(0)] = 0.75
    """Weight of the share of free units that a task takes."""
    lr: Annotated[float, Gt(0)] = 0.05
    """Learning rate of the gates' embeddings."""
