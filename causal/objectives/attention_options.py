"""Options of the objectives of attention; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt


@dataclass(frozen=True, kw_only=True)
class EffectOfAttentionOptions:
    """The cross-entropy of the logits, and of what attention adds to them."""

    label: Annotated[float, Ge(0)] = 1 / 3
    """Weight of the cross-entropy of the logits."""
    effect: Annotated[float, Gt(0)] = 1.0
    """Weight of that of the logits less those with other attention."""


@dataclass(frozen=True, kw_only=True)
class ComplementaryTrainingOptions:
    """A head for every environment, which agree, beside one of both parts."""

    agreement: Annotated[float, Ge(0)] = 5e5
    """Weight of how far apart the heads of environments are, lambda."""
    every: Annotated[int, Ge(1)] = 5
    """The training images are parted anew each time all of them were shown so often; until then by chance."""
    rounds: Annotated[int, Ge(1)] = 200
    """Steps in which a parting is learned."""
