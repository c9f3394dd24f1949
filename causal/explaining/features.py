"""What a feature sees: pictures that excite a channel most, and what in them does."""

from __future__ import annotations

import torch
from torch import Tensor

from engram.causal.explaining.asking import Asked


@torch.no_grad()
def excitement(asked: Asked, x: Tensor) -> Tensor:
    """x: [B, C, H, W] normalised -> the largest value of every channel of the stage, over places and steps, [B, c]."""
    _, values = asked.at_stage(x)
    return torch.cat(values).amax((0, -2, -1))


def seen_by(asked: Asked, x: Tensor, channel: int) -> Tensor:
    """What in a picture excites a channel of the stage where it is excited most.

    The gradient of that value with respect to the picture, of which activations let pass what is positive: guided
    backpropagation, Springenberg et al. 2015 (arXiv 1412.6806), after the deconvolution of Zeiler and Fergus 2014. It
    shows the patterns that a feature answers to; it is no measure of what they do for an answer.

    Args:
        x: [B, C, H, W] normalised.
        channel: of the stage, from 0.

    Returns: [B, C, H, W].
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        strongest = torch.cat(asked.rectified(x))[:, :, channel].amax((0, -2, -1))
        (grad,) = torch.autograd.grad(strongest.sum(), x)
    return grad


def chosen(excited: Tensor, channels: int, pictures: int) -> list[tuple[int, list[int]]]:
    """Channels that pictures excite most differently, in their order, each with the pictures that excite it most.

    excited: [N, c] -> at most so many channels with the places of at most so many pictures.
    """
    spread = excited.double().var(0)
    order = spread.argsort(descending=True, stable=True)[:channels].sort().values
    return [
        (channel, excited[:, channel].argsort(descending=True, stable=True)[:pictures].tolist())
        for channel in order.tolist()
        if spread[channel] > 0
    ]
