"""Options of objectives that compare environments or groups; no torch here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from engram.backbone.contract import AskingOptions, Asks


@dataclass(frozen=True, kw_only=True)
class AnnealedOptions:
    """A penalty that counts little until something is learned."""

    anneal: Annotated[int, Ge(0)] | None = None
    """Steps before the penalty counts ``penalty`` times; in them it counts once. None: a tenth of the training, as
    DomainBed's 500 of 5,001."""
    restart: bool = True
    """Forget at that step what the optimizer remembers of earlier gradients, as DomainBed does."""
    divide: bool = True
    """Divide the gradient of the whole loss by ``penalty`` once that counts, where it is above 1, as IRM's code does;
    DomainBed's does not."""


@dataclass(frozen=True, kw_only=True)
class IRMOptions(AnnealedOptions):
    """Invariant risk minimisation."""

    penalty: Annotated[float, Ge(0)] = 100.0
    """What the penalty counts for in the loss, lambda; 100 is DomainBed's default."""
    estimate: Literal["halves", "pairs", "square"] = "halves"
    """The square of an environment's slope, from a batch. halves: the product of the slopes of two halves of its
    rows, which is right on average and may be negative; pairs: the mean of that over all ways to halve them, which
    varies least; square: of the slope of all its rows, which is too large by its variance: for batches that are all
    of the data."""


@dataclass(frozen=True, kw_only=True)
class VRExOptions(AnnealedOptions):
    """Variance risk extrapolation."""

    penalty: Annotated[float, Ge(0)] = 10.0
    """What the variance counts for in the loss, beta; 10 is DomainBed's default."""


@dataclass(frozen=True, kw_only=True)
class MatchingOptions:
    """Features that are distributed alike in all environments."""

    penalty: Annotated[float, Ge(0)] = 1.0
    """What the difference counts for in the loss; 1 is DomainBed's default."""


@dataclass(frozen=True, kw_only=True)
class ReweightOptions(AskingOptions):
    """Groups that count alike."""

    column: str = "group"
    """The column of the data whose values are the groups."""

    def asks(self, declared: Asks) -> Asks:
        return replace(declared, columns=(self.column,))


@dataclass(frozen=True, kw_only=True)
class GroupDROOptions(ReweightOptions):
    """Groups that count the more, the worse they are."""

    rate: Annotated[float, Gt(0)] = 0.01
    """How fast weights of groups move, eta; 0.01 is Sagawa et al.'s."""
    adjustment: Annotated[float, Ge(0)] = 0.0
    """C: groups of n training images count as worse by C / sqrt(n), for small ones generalise less. Sagawa et al. tried
    0 to 5."""
