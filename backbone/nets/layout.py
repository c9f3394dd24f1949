"""The memory layout of images and weights: channels-last, which is faster, wherever a network's code works with it.

Much code in the world does not: ``x.view(x.size(0), -1)`` of a convolution's output asks for channels to come before
rows in memory. What is neither torch's nor the trunk's own is therefore tried out, once for each network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from engram.backbone.contract import AnyLayout
from engram.backbone.nets.plain import copied

_KEY = "_memory_layout"
_TRUSTED = ("torch", "engram")
DIFFERENCE = 0.1
"""Relative difference between the two layouts' features that rounding cannot make, quantised activations included."""


def layout(net: nn.Module) -> torch.memory_format:
    """The layout for a backbone and its images [B, C, H, W]; found at the first question and remembered."""
    found = net.__dict__.get(_KEY)
    if found is None:
        channels_last = (isinstance(net, AnyLayout) and net.any_layout) or _is_known(net) or _works(net)
        found = torch.channels_last if channels_last else torch.contiguous_format
        net.__dict__[_KEY] = found
    return found


def arranged(images: Tensor, net: nn.Module) -> Tensor:
    """images: [B, C, H, W] in a backbone's layout; frames [B, T, C, H, W] as they are."""
    if images.ndim != 4:
        return images
    if layout(net) is torch.channels_last:
        return images.contiguous(memory_format=torch.channels_last)
    return images.contiguous().flatten().view(images.shape)  # one channel is contiguous either way: strides must be too


def _is_known(net: nn.Module) -> bool:
    return all(type(module).__module__.partition(".")[0] in _TRUSTED for module in net.modules())


def _works(net: Any) -> bool:
    """Whether a network computes the same in channels-last, and can be trained in it; tried on a copy."""
    like = next(net.parameters(), torch.empty(0))
    devices = [like.device] if like.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        image = torch.randn(2, *net.in_shape, generator=torch.Generator().manual_seed(0)).to(like.device)
        try:
            twin = copied(net).eval()
            with torch.no_grad():
                expected = twin(image)
                image = image.contiguous(memory_format=torch.channels_last)
                twin.to(memory_format=torch.channels_last)
                error = (twin(image) - expected).norm() / expected.norm()
            if error > DIFFERENCE:
                return False
            trained = twin.train()(image)
            if trained.requires_grad:
                trained.float().square().sum().backward()
        except Exception:  # a stranger's code may fail in any way
            return False
    return True
