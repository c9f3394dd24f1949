"""BatchNorm that knows at which step it is: values of different steps are distributed differently."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engram.backbone.nets.plain import copied


class StepNorm(nn.Module):
    """A BatchNorm for each step, all of which begin as the same one.

    ``step`` says which one is meant; whoever runs a step sets it first. Steps beyond the last have the last one's.

    Source: Liao and Poggio 2016 (arXiv 1604.03640), section 3.4: statistics of their own for every step.
    """

    def __init__(self, norm: nn.Module, steps: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(copied(norm) for _ in range(steps))
        self.step = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.norms[min(self.step, len(self.norms) - 1)](x)


def norms_of_steps(net: nn.Module, steps: int, constant: Collection[nn.Module]) -> list[StepNorm]:
    """Put a `StepNorm` in the place of every BatchNorm that is not ``constant``, in place, and return them."""
    found = []
    for name, module in list(net.named_modules()):
        if isinstance(module, _BatchNorm) and module not in constant:
            found.append(StepNorm(module, steps))
            net.set_submodule(name, found[-1])
    return found


@torch.no_grad()
def called_norms(net: nn.Module, run: object, x: Tensor) -> tuple[set[nn.Module], Tensor]:
    """The BatchNorms that ``run(x)`` calls, a part of ``net``, and what it gives."""
    called: set[nn.Module] = set()
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    handles = [module.register_forward_hook(lambda module, _inputs, _output: called.add(module)) for module in norms]
    try:
        return called, run(x)  # type: ignore[operator]
    finally:
        for handle in handles:
            handle.remove()
