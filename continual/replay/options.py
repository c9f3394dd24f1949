"""Options of the replaying strategies; no torch here. How many images they keep is ``--buffer`` of the stream."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import Ge

from engram.backbone.contract import StrategyOptions, Traits


@dataclass(frozen=True, kw_only=True)
class StreamedOptions(StrategyOptions):
    """Options of strategies that choose what to keep while images come by."""

    copies: bool = False
    """Offer an image to the buffer in every pass over its task, as most published code does, so that it may take
    several places. Otherwise it is offered in one of the passes, each as likely, and kept once at most."""


@dataclass(frozen=True, kw_only=True)
class EROptions(StreamedOptions):
    """Experience replay."""

    selection: Literal["reservoir", "balanced", "random", "herding"] = "reservoir"
    """What is kept. reservoir: a uniform sample of all images so far. balanced: equal shares for the classes. random:
    at the end of a task, as many of each of its classes as there is room for when all have come. herding: at the end of
    a task, those whose mean feature is nearest to that of their class."""
    replay_batch: Annotated[int, Ge(1)] | None = None
    """Rows replayed per step. None: --batch-size."""
    weighting: Literal["rows", "tasks"] = "rows"
    """rows: every row counts the same. tasks: the task at hand counts 1/T, the rest 1 - 1/T, at the T-th task."""

    def traits(self, declared: Traits, path: str) -> Traits:
        told, weighs = self.selection in ("random", "herding"), self.weighting == "tasks"
        unweighted = "--strategies.er.weighting rows"
        return replace(declared, boundaries=told or weighs, weighs=weighs, by_rows=weighs, unweighted=unweighted)

    def problems(self, path: str) -> list[str]:
        if not self.copies or self.selection not in ("random", "herding"):
            return []
        return [
            "--strategies.er.copies must be left out where images are chosen at the end of a task; got it beside "
            f"--strategies.er.selection {self.selection}. Use --strategies.er.selection reservoir."
        ]


@dataclass(frozen=True, kw_only=True)
class DEROptions(StreamedOptions):
    """Dark experience replay."""

    alpha: Annotated[float, Ge(0)] = 0.3
    """Weight of the mean squared distance to the logits of back then, a mean over rows and logits."""
    replay_batch: Annotated[int, Ge(1)] | None = None
    """Rows replayed per step. None: --batch-size."""


@dataclass(frozen=True, kw_only=True)
class DERppOptions(StreamedOptions):
    """Dark experience replay with labels."""

    alpha: Annotated[float, Ge(0)] = 0.1
    """Weight of the mean squared distance to the logits of back then, a mean over rows and logits."""
    beta: Annotated[float, Ge(0)] = 0.5
    """Weight of the cross-entropy of replayed rows."""
    replay_batch: Annotated[int, Ge(1)] | None = None
    """Rows replayed per step, in each of the two draws. None: --batch-size."""


@dataclass(frozen=True, kw_only=True)
class ERACEOptions(StreamedOptions):
    """Experience replay with asymmetric cross-entropy."""

    replay_batch: Annotated[int, Ge(1)] | None = None
    """Rows replayed per step. None: --batch-size."""


@dataclass(frozen=True, kw_only=True)
class AGEMOptions:
    """Averaged gradient episodic memory."""

    replay_batch: Annotated[int, Ge(1)] | None = None
    """Kept rows whose gradient is the reference. None: --batch-size."""


@dataclass(frozen=True, kw_only=True)
class ICaRLOptions:
    """Exemplars, distillation and nearest means."""

    distill: Annotated[float, Ge(0)] = 1.0
    """Weight of the answers of the network before the task, for the classes it knew."""
    scale: Literal["sum", "mean"] = "sum"
    """The loss of a row over the classes so far. sum: the paper's; mean: much published code's, whose rates it fits."""
