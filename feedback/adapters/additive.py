"""The adapter ``feedback.additive``: what later stages saw is added to what earlier ones give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from engram.feedback.network.network import FeedbackNetwork, wrapped
from engram.feedback.network.paths import added
from engram.feedback.options import FeedbackOptions


class Additive(FeedbackNetwork):
    """Additive feedback: ``y + p`` for every path p that leads to a stage with output y.

    The sum may be negative, also behind a ReLU. While the paths are what they begin as, the network is the wrapped one,
    at every step.
    """

    bound = ""

    def combine(self, stage: int, value: Tensor, tops: Sequence[Tensor]) -> Tensor:
        return added(value, tops)


def additive(backbone: nn.Module, options: FeedbackOptions, saved: Mapping[str, Tensor] | None = None) -> Additive:
    """Additive feedback around a copy of a network in stages.

    Raises:
        UserError: it is not in stages, or does not have the connections or steps.
    """
    return Additive(wrapped(backbone, "feedback.additive"), options).train(backbone.training)
