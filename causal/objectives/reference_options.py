"""Options of the objectives that look at a second network; no torch here."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from engram.backbone.contract import AskingOptions, Asks
from engram.backbone.errors import must
from engram.causal.objectives.environment_options import IRMOptions


@dataclass(frozen=True, kw_only=True)
class JTTOptions:
    """Options of ``jtt``."""

    upweight: Annotated[float, Gt(1)] = 20.0
    """How much more an image counts that the reference network gets wrong."""


@dataclass(frozen=True, kw_only=True)
class LfFOptions:
    """Options of ``lff``."""

    q: Annotated[float, Gt(0), Le(1)] = 0.7
    """Of the biased network's generalised cross-entropy: the larger, the more it learns from what it knows already."""
    decay: Annotated[float, Ge(0), Lt(1)] = 0.7
    """Of the running average of every image's losses, which the weights are made of; 0 takes the last loss."""


@dataclass(frozen=True, kw_only=True)
class EIILOptions(AskingOptions, IRMOptions):
    """Options of ``eiil``: what follows once environments are found; those of ``irm`` besides."""

    then: Literal["irm", "groupdro"] = "irm"
    """The objective that environments are found for."""
    rate: Annotated[float, Gt(0)] = 0.01
    """Of groupdro: how fast weights of groups move."""

    def problems(self) -> list[str]:
        others = [each.name for each in fields(IRMOptions)] if self.then == "groupdro" else ["rate"]
        rule = f"left out beside --objective.then {self.then}, which has no such option"
        return [
            str(must(f"--objective.{name}", rule, getattr(self, name), "Drop one of the two."))
            for name in others
            if getattr(self, name) != getattr(type(self), name)
        ]


@dataclass(frozen=True, kw_only=True)
class DFROptions:
    """Options of ``dfr``."""

    on: Literal["validation", "train"] = "validation"
    """The images that the last layer is fitted on, as many of every group: validation images, of which then half are
    kept back for the choice of C; or training images, which the network has seen, with all validation images for the
    choice."""
    refits: Annotated[int, Ge(1)] = 20
    """How many fits, each on images drawn anew, the layer is the mean of."""


@dataclass(frozen=True, kw_only=True)
class AFROptions(AskingOptions):
    """Options of ``afr``. Where both are given no groups are needed, and no images are kept back for a choice."""

    gamma: Annotated[float, Ge(0)] | None = None
    """How much an image counts less, the surer the reference network is of its class: exp(-gamma p). None: the value
    by which the worst group of images that are kept back is best."""
    l2: Annotated[float, Gt(0)] | None = None
    """Weight of the squared distance of the last layer from the reference's. None: as for gamma."""

    def asks(self, declared: Asks) -> Asks:
        return declared if self.gamma is None or self.l2 is None else replace(declared, columns=())
