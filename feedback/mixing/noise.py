"""Noise of the mixing experiment."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from engram.backbone.nets.classifier import Normalise


def noisy(
    x: Tensor, kind: Literal["gaussian", "salt-and-pepper"], level: float, normalise: Normalise, random: torch.Generator
) -> Tensor:
    """Normalised images [..., C, H, W] with noise.

    Args:
        x: the images.
        kind: gaussian, added to every value and not cut off; or salt-and-pepper: pixels white or black in all
            channels, as likely as each other, drawn for every image.
        level: standard deviation, or share of pixels.
        normalise: what normalised them, which says what is white.
        random: on the CPU.

    Source: Alamia et al. 2023. In their code (2021) one draw of salt and pepper is for a whole batch, and both are the
    batch's largest value: it is salt alone.
    """
    if kind == "gaussian":
        return x + level * torch.randn(x.shape, generator=random).to(x.device, x.dtype)
    lot = torch.rand(*x.shape[:-3], 1, *x.shape[-2:], generator=random).to(x.device)
    black, white = normalise(torch.tensor([0.0, 1.0], device=x.device).view(2, 1, 1, 1).expand(2, x.shape[-3], 1, 1))
    return torch.where(lot < level / 2, white, torch.where(lot >= 1 - level / 2, black, x))
