"""The adapter ``feedback.gated``: what later stages saw is a gain on what earlier ones give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from engram.feedback.network.network import FeedbackNetwork, wrapped
from engram.feedback.network.paths import Gain, spread, together
from engram.feedback.options import FeedbackOptions


class Gated(FeedbackNetwork):
    """Multiplicative feedback: ``y (1 + tanh p)`` for every path p that leads to a stage with output y.

    The gain is between 0 and 2, and 1 while the paths are what they begin as: the network then is the wrapped one, at
    every step. Where a stage gives nothing, feedback makes nothing of it. What a tap sees of a path is its gain.

    Source: Konkle and Alvarez 2023, long-range modulatory feedback: ``x + x f``, here with f between -1 and 1.
    """

    neutral = 1.0
    bound = ""
    along = Gain

    def combine(self, stage: int, value: Tensor, tops: Sequence[Tensor]) -> Tensor:
        for gain in tops:
            factor, blocks = spread(gain, value)
            value = together(blocks * factor, value)
        return value


def gated(backbone: nn.Module, options: FeedbackOptions, saved: Mapping[str, Tensor] | None = None) -> Gated:
    """Multiplicative feedback around a copy of a network in stages.

    Raises:
        UserError: it is not in stages, or does not have the connections or steps.
    """
    return Gated(wrapped(backbone, "feedback.gated"), options).train(backbone.training)
