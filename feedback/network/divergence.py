"""Feedback that feeds itself: found by what the features become."""

from __future__ import annotations

from torch import Tensor

from engram.backbone.errors import TrialError

EXPLODED = 1e6
"""Features so many times as large as those of the first step have nothing to say any more."""


def within_bounds(features: Tensor, first: int, training: bool) -> Tensor:
    """Features as they are; a GPU is asked in evaluation mode alone, which has to wait for it.

    Args:
        features: [S, B, feature_dim] after each step.
        first: the first step whose features are of the image, from 0; those before it are zeros.
        training: whether the network is in training mode.

    Raises:
        TrialError: they are no numbers from some step on, or more than `EXPLODED` times as large as the first ones, or
            as 1, whichever is more.
    """
    if training and features.is_cuda:
        return features
    sizes = features.detach().abs().amax((1, 2))
    most = EXPLODED * sizes[min(first, len(sizes) - 1)].clamp_min(1)
    fine = sizes <= most  # not so where one of the two is no number
    if bool(fine.all()):
        return features
    step = int(fine.int().argmin())
    raise TrialError(
        f"the features of a network with feedback must be at most {EXPLODED:.0e} times those of its first step; got"
        f" {float(sizes[step]):.3g} at step {step + 1} of {len(sizes)}, after {float(sizes[max(step - 1, 0)]):.3g}."
        " Use fewer steps, a smaller --lr, or --clip 1."
    )
