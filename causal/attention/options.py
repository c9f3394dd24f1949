"""Options of the adapters; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

Kind = Literal["uniform", "shuffled", "mean", "reversed"]
"""What stands in the place of attention: see `CounterfactualOptions`."""


@dataclass(frozen=True, kw_only=True)
class CounterfactualOptions:
    """Features pooled by attention maps, and the same with other maps in their place, Rao et al. 2021."""

    maps: Annotated[int, Ge(1), Le(512)] = 8
    """Attention maps, as many times the channels of the last stage are the features; the paper has 32."""
    counterfactual: Kind = "uniform"
    """What takes the place of the maps. uniform: drawn from 0 to 2 in training, 1 everywhere afterwards; shuffled: the
    maps of another image of the batch; mean: the mean of every map at all places; reversed: the largest value of every
    map less the map."""
    scale: Annotated[float, Gt(0)] = 100.0
    """Length of the features: they are scaled to it."""


@dataclass(frozen=True, kw_only=True)
class ComplementaryOptions:
    """Attention whose two parts, what it lets through and what it leaves out, are both kept, Wang et al. 2021."""

    attended: Annotated[int, Ge(1), Le(64)] = 2
    """Attention stands behind so many of the last stages; networks with fewer have it behind all."""
    environments: Annotated[int, Ge(2), Le(64)] = 4
    """Environments into which the objective ``complementary`` parts the training images, each with a head of its
    own."""
    reduction: Annotated[int, Ge(1), Le(256)] = 16
    """How many channels share a unit in the layer that looks at channels, as in CBAM; it has at least one."""
    kernel: Annotated[int, Ge(1), Le(31)] = 7
    """Side of the kernel that looks at places, odd."""
