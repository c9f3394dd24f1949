"""Values of a network in which one channel is another: what it changes is computed, and the rest known already."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.nets.taps import is_activation

_BY_CHANNEL = (
    *(nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
    *(nn.ZeroPad2d, nn.Upsample, nn.Identity, nn.Dropout),
)
"""What treats every channel alike and by itself, in evaluation mode."""


@dataclass(frozen=True)
class OneChannel:
    """G variants of a value of B rows, in each of which one channel is replaced.

    Attributes:
        clean: [B, C, *size], the value as it is.
        channels: [G] int64, which channel each variant replaces.
        new: [G, B, *size], by what.
        flat: the value is ``clean.flatten(1)``, [B, C * size].
    """

    clean: Tensor
    channels: Tensor
    new: Tensor
    flat: bool = False

    @property
    def change(self) -> Tensor:
        """What is new less what was there, [G, B, *size]."""
        return self.new - self.clean.movedim(1, 0)[self.channels]

    def whole(self) -> Tensor:
        """All of it, [G * B, C, *size], channels last in memory; [G * B, C * size] where it is flat."""
        last = self.clean.movedim(1, -1)
        found = last.expand(len(self.channels), *last.shape).contiguous()
        for variant, (channel, new) in enumerate(zip(self.channels.tolist(), self.new, strict=True)):
            found[variant, ..., channel] = new
        rows = found.flatten(0, 1).movedim(-1, 1)
        return rows.flatten(1) if self.flat else rows


def through(module: nn.Module, value: OneChannel, clean: Tensor) -> OneChannel | Tensor | None:
    """What a module makes of such a value: as such a value where channels stay apart, else [G * B, ...].

    Args:
        module: in evaluation mode.
        value: what it is given.
        clean: [B, ...], what it makes of the value as it is.

    Returns: None where there is no shorter way than running it on the whole value.
    """
    if isinstance(module, nn.Linear) and value.clean.ndim == (3 if value.flat else 2):
        return _linear(module, value, clean)
    if value.flat:
        return None
    if isinstance(module, nn.Conv2d):
        return _convolution(module, value, clean) if _is_plain(module) else None
    if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
        return flattened(value)
    alike = isinstance(module, _BY_CHANNEL) or (is_activation(module) and not isinstance(module, nn.PReLU))
    if not alike or value.clean.ndim != 4:
        return None
    rows = module(value.new.flatten(0, 1).unsqueeze(1))
    return replace(value, clean=clean, new=rows.squeeze(1).unflatten(0, value.new.shape[:2]))


def flattened(value: OneChannel) -> OneChannel:
    """As ``flatten(1)``."""
    return OneChannel(value.clean.flatten(2), value.channels, value.new.flatten(2), flat=True)


def added(value: OneChannel, other: Tensor) -> Tensor:
    """The sum with another value of the variants, [G * B, C, H, W], which it is written into."""
    parts = other.unflatten(0, value.new.shape[:2])
    parts += value.clean
    for variant, (channel, change) in enumerate(zip(value.channels.tolist(), value.change, strict=True)):
        parts[variant, :, channel] += change
    return other


def _is_plain(module: nn.Conv2d) -> bool:
    """Whether each of its outputs is a sum over all channels of neighbouring places, with zeros around."""
    return module.groups == 1 and module.dilation == (1, 1) and module.padding_mode == "zeros"


def _convolution(module: nn.Conv2d, value: OneChannel, clean: Tensor) -> Tensor:
    """What is known, and the one channel's change times its own weights: a matrix product of as many terms as the
    kernel has places.
    """
    change = _padded(module, value.change)
    (height, width), (down, right) = module.kernel_size, module.stride
    patches = change.unfold(2, height, down).unfold(3, width, right).flatten(4)  # [G, B, H', W', h * w]
    variants, rows = patches.shape[:2]
    weights = module.weight.flatten(2)[:, value.channels].permute(1, 2, 0)  # [G, h * w, C']
    last = clean.movedim(1, -1)
    known = last.reshape(1, -1, last.shape[-1]).expand(variants, -1, -1)
    found = torch.baddbmm(known, patches.flatten(1, 3), weights)
    return found.view(variants * rows, *last.shape[1:]).movedim(-1, 1)


def _padded(module: nn.Conv2d, change: Tensor) -> Tensor:
    if isinstance(module.padding, str):
        if module.padding == "valid":
            return change
        spare = [size - 1 for size in reversed(module.kernel_size)]
        return F.pad(change, [each for size in spare for each in (size // 2, size - size // 2)])
    rows, columns = module.padding
    return F.pad(change, (columns, columns, rows, rows)) if rows or columns else change


def _linear(module: nn.Linear, value: OneChannel, clean: Tensor) -> Tensor:
    """What is known, and the change times its own weights."""
    change = value.change.reshape(*value.change.shape[:2], -1)  # [G, B, m]
    weights = module.weight.unflatten(1, (value.clean.shape[1], math.prod(value.clean.shape[2:])))
    found = torch.baddbmm(clean.expand(len(change), *clean.shape), change, weights[:, value.channels].permute(1, 2, 0))
    return found.flatten(0, 1)
