"""Layers whose weights are computed from other tensors: pruned, weight-normed, spectral-normed, parametrised at all."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

N = TypeVar("N", bound=nn.Module)


def copied(net: N) -> N:
    """A deep copy, also of a network whose hooks leave weights behind that belong to the graph of a backward pass."""
    held = [
        (attributes, name, value)
        for attributes in map(vars, net.modules())
        for name, value in attributes.items()
        if isinstance(value, Tensor) and not value.is_leaf
    ]
    try:
        for attributes, name, value in held:
            attributes[name] = value.detach()
        return copy.deepcopy(net)
    finally:
        for attributes, name, value in held:
            attributes[name] = value


def make_plain(net: nn.Module) -> None:
    """Turn weights that are computed into parameters with the values they have in evaluation mode, in place.

    Known are `torch.nn.utils.parametrize`, `torch.nn.utils.prune`, and weight and spectral norm as hooks.
    """
    for module in list(net.modules()):
        if is_parametrized(module):
            _remove_parametrizations(module)
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)  # type: ignore[attr-defined]
            elif isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(module, hook.name)


@torch.no_grad()
def _remove_parametrizations(module: nn.Module) -> None:
    """As torch's function of that name, which would change the class that a copy shares with its original."""
    computed: Any = module.parametrizations
    computed.eval()  # spectral norm would go on with its power iteration
    values = {name: getattr(module, name).clone() for name in computed}
    module.__class__ = type(module).__bases__[0]
    del module._modules["parametrizations"]
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value))
