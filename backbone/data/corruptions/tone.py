"""Changes of brightness and contrast."""

from __future__ import annotations

from torch import Tensor

from engram.backbone.data.corruptions.draws import Draws
from engram.backbone.data.corruptions.levels import truncated

_BRIGHTER = (0.05, 0.1, 0.15, 0.2, 0.3)
_CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)


def brightness(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """The value of every colour (its largest channel) raised by 0.05 to 0.3, where white is 1.

    Hue and saturation stay: all channels grow by one factor, and black becomes grey. images: [B, C, H, W] uint8 ->
    the same.
    """
    x = images.double()
    value = x.amax(1, keepdim=True)
    raised = (value + 255 * _BRIGHTER[severity - 1]).clamp(max=255)
    return truncated((x * raised / value.clamp(min=1)).where(value > 0, raised))


def contrast(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Every channel drawn to its mean over the picture: 0.75 to 0.15 of the difference stay.

    images: [B, C, H, W] uint8 -> the same.
    """
    x = images.double()
    mean = x.mean((2, 3), keepdim=True)
    return truncated((x - mean) * _CONTRAST[severity - 1] + mean)
