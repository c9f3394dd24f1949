"""What a network makes of a batch, as objectives see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Wanted = Literal["steps", "features", "images", "predictions", "given", "counterfactual", "concepts", "halves"]


@dataclass
class Halves:
    """What attention leaves out beside what it lets through (`engram.backbone.contract.Complementary`).

    Attributes:
        rest: [N, D], the features of what it leaves out.
        environments: [E, N, K] float32, logits of what it lets through by a head for every environment.
        mixed: [N, K] float32, logits of both together.
        spread: [], how far apart the heads of environments are.
    """

    rest: Tensor
    environments: Tensor
    mixed: Tensor
    spread: Tensor


@dataclass
class Outputs:
    """What the network makes of a batch.

    Attributes:
        logits: [N, K] float32, the read-out of all steps.
        steps: [S, N, K] float32, those of every step, for objectives that want ``"steps"``.
        features: [N, D], the read-out in front of the head, for objectives that want ``"features"``.
        images: [N, C, H, W], what the network would be shown, for objectives that want ``"images"`` and run it
            themselves: it is not run before, and there are no logits, [N, 0].
        predictions: [P], the mean squared error of each prediction that a network makes of its own values
            (`engram.backbone.contract.Predicting`), for objectives that want ``"predictions"``: nothing else is
            computed, and there are no logits, [N, 0].
        given: [N, V, K] float32, log-likelihoods of the classes for each of V values of another variable, where the
            head tells them (`engram.backbone.contract.Conditional`), for objectives that want ``"given"``.
        counterfactual: [N, K] float32, the logits with other attention in the place of the network's
            (`engram.backbone.contract.Counterfactual`), for objectives that want ``"counterfactual"``.
        concepts: [N, C] float32, the logits of the concepts that a head makes of the features
            (`engram.backbone.contract.Conceptual`), for objectives that want ``"concepts"``.
        halves: for objectives that want ``"halves"``.
        offered: [K] or [N, K] bool, the outputs that a row chooses among; None for all. Logits of others are far below.
    """

    logits: Tensor
    steps: Tensor | None = None
    features: Tensor | None = None
    images: Tensor | None = None
    predictions: Tensor | None = None
    given: Tensor | None = None
    counterfactual: Tensor | None = None
    concepts: Tensor | None = None
    halves: Halves | None = None
    offered: Tensor | None = None

    def on_offer(self, logits: Tensor) -> Tensor:
        """Other logits of the same rows, [..., N, K], with those of outputs that are not on offer as far below."""
        return logits if self.offered is None else logits.where(self.offered, self.logits)
