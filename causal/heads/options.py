"""Options of the heads that adjust; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le


@dataclass(frozen=True, kw_only=True)
class BackdoorOptions:
    """Answers averaged over the values of a confounder, as often as they come."""

    mode: Literal["exact", "nwgm", "attention"] = "exact"
    """exact: the mean of the answers. nwgm: the answer to the mean of the logits, the normalised weighted geometric
    mean, which is another number. attention: logits under weights that follow the image, as published: no
    intervention."""
    confounders: Annotated[int, Ge(1), Le(4096)] = 16
    """How many values the confounder has, at most. Where the data have a column context its values are taken;
    otherwise features are clustered into so many (k-means)."""


@dataclass(frozen=True, kw_only=True)
class FrontdoorOptions:
    """Answers of what the image leads to, averaged over other images."""

    mediators: Annotated[int, Ge(2), Le(4096)] = 8
    """How many values the mediator has, at most: those of the column mediator, where the data have it."""
    samples: Annotated[int, Ge(1)] = 1024
    """How many training images are averaged over: the last that training has shown."""
