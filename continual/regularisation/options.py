"""Options of the strategies that regularise; no torch here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from engram.backbone.contract import StrategyOptions, Traits
from engram.continual.distilling import Scale

Strength = Annotated[float, Ge(0)] | Literal["auto"]
"""Of a penalty. auto: chosen on the first tasks (`engram.continual.experiment.choice`), as it depends on data and
length of training."""


@dataclass(frozen=True, kw_only=True)
class SIOptions:
    """Synaptic intelligence."""

    c: Strength = "auto"
    """Strength of the penalty. auto: chosen on the first tasks, see --cross-validation-tasks."""
    xi: Annotated[float, Gt(0)] = 0.1
    """Damping: what a weight must have moved, squared, for its importance to count in full."""
    gradient: Literal["task", "total"] = "task"
    """Which gradient a weight's contribution is made of: that of the loss alone, or of the loss with the penalty."""
    relu: bool = True
    """Keep importances from becoming negative."""


@dataclass(frozen=True, kw_only=True)
class EWCOptions:
    """Elastic weight consolidation."""

    strength: Strength = "auto"
    """Lambda; half of it multiplies the penalty. auto: chosen on the first tasks, see --cross-validation-tasks."""
    fisher: Literal["exact", "sampled", "empirical"] = "exact"
    """Labels the Fisher information is an expectation over: all outputs by their probability, one drawn by it for each
    image, or the image's own."""
    samples: Annotated[int, Ge(1)] | None = None
    """Images of a task to estimate it from; None: all."""
    online: bool = False
    """One penalty around the newest weights, instead of one for every task around the weights it ended with."""
    gamma: Annotated[float, Ge(0), Le(1)] = 1.0
    """What is kept of earlier tasks' information with each new one, online; 0 forgets all of it, even while the next
    task is learned."""


@dataclass(frozen=True, kw_only=True)
class MASOptions:
    """Memory aware synapses."""

    strength: Strength = "auto"
    """Lambda, which multiplies the penalty. auto: chosen on the first tasks, see --cross-validation-tasks."""
    samples: Annotated[int, Ge(1)] | None = None
    """Images of a task to estimate importances from; None: all."""


@dataclass(frozen=True, kw_only=True)
class LwFOptions(StrategyOptions):
    """Learning without forgetting."""

    strength: Annotated[float, Ge(0)] | None = None
    """Weight of the distillation beside the loss, which then counts in full. None: 1 - 1/T beside 1/T for the loss, T
    being the number of tasks so far."""
    temperature: Annotated[float, Gt(0)] = 2.0
    """Both networks' logits are divided by it."""
    scale: Scale = "none"
    """Factor of the distillation. temperature: its square, which gives gradients back the size they have at 1; outputs:
    that divided by the number of outputs, as van de Ven's code of 2018 has it; none: 1, as Li and Hoiem."""

    def traits(self, declared: Traits, path: str) -> Traits:
        return replace(declared, weighs=self.strength is None)
