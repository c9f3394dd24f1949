"""The gradient of a layer's weights for every image of a batch, from what went into the layer and what came back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engram.backbone.nets.blocks import PooledConv2d

SCALES = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)


def understood(module: nn.Module) -> bool:
    """Whether there is a formula for a layer; a derived class may compute anything."""
    if type(module) in (nn.Conv2d, PooledConv2d):
        assert isinstance(module, nn.Conv2d)
        return module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) > 1:
        return False
    return type(module) in (nn.Linear, *SCALES)


@dataclass
class Calls:
    """What one layer was given and gave, at every call of a forward pass."""

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)


class Watch:
    """While it is entered, keeps the calls of all layers of a network that have weights of their own.

    Layers that there is no formula for are not watched. ``calls`` is filled by a forward pass and emptied on leaving.
    """

    def __init__(self, model: nn.Module) -> None:
        layers = [m for m in model.modules() if understood(m) and list(m.parameters(recurse=False))]
        self.calls = {layer: Calls() for layer in layers}
        self.handles: list[Any] = []

    @property
    def covered(self) -> set[nn.Parameter]:
        return {p for layer in self.calls for p in layer.parameters(recurse=False)}

    def __enter__(self) -> Watch:
        self.handles = [layer.register_forward_hook(self._keep) for layer in self.calls]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()
        self.calls = {layer: Calls() for layer in self.calls}

    def _keep(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        calls = self.calls[module]
        calls.inputs.append(args[0].detach())
        calls.outputs.append(output)
        return output.clone()  # what follows may work in place, and the gradient wanted is that of this value


def terms(module: nn.Module, x: Tensor) -> Tensor | None:
    """x: [R, ...] into a layer -> [R, P, n], what its weight's gradient is made of at every position (`gradients`)."""
    if getattr(module, "weight", None) is None:
        return None
    if isinstance(module, nn.Conv2d):
        pooled = isinstance(module, PooledConv2d)
        size = (module.kernel_size[0] + pooled, module.kernel_size[1] + pooled)
        stride = 2 if pooled else module.stride
        assert not isinstance(module.padding, str)
        return F.unfold(x.contiguous(), size, module.dilation, module.padding, stride).mT
    if isinstance(module, _BatchNorm):
        x = F.batch_norm(x, module.running_mean, module.running_var, eps=module.eps)
    elif isinstance(module, nn.GroupNorm):
        x = F.group_norm(x, module.num_groups, eps=module.eps)
    elif isinstance(module, nn.LayerNorm):
        x = F.layer_norm(x, module.normalized_shape, eps=module.eps)
    return positions(module, x)


def positions(module: nn.Module, x: Tensor) -> Tensor:
    """x: [R, ...] in the layout of a layer's output -> [R, P, channels]."""
    last = isinstance(module, nn.Linear | nn.LayerNorm) or x.ndim == 2
    return x.reshape(len(x), -1, x.shape[-1]) if last else x.flatten(2).mT


def gradients(module: Any, back: Tensor, went_in: Tensor) -> Tensor:
    """back: [N, P, m] gradients of the output, went_in: [N, P, n] -> [N, ...], the weight's gradient for each image."""
    if isinstance(module, SCALES):
        return (back * went_in).sum(1)
    found = torch.bmm(back.mT, went_in)
    if not isinstance(module, PooledConv2d):
        return found.view(len(found), *module.weight.shape)
    height, width = module.kernel_size
    found = found.view(len(found), module.out_channels, module.in_channels, height + 1, width + 1)
    found = found[..., :-1, :] + found[..., 1:, :]  # back through `PooledConv2d.pooled_weight`
    return (found[..., :-1] + found[..., 1:]) * 0.25
