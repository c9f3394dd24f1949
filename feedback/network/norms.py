"""BatchNorm that knows at which step it is: values of different steps are distributed differently."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engram.backbone.nets.plain import copied


class StepNorm(nn.Module):
    """A BatchNorm for each step, weights and statistics, all of which begin as the same one.

    ``step`` says which one is meant; whoever runs a step sets it first. Steps beyond the last have the last one's.

    Args:
        norm: what each begins as.
        steps: of the network.
        first: the number of the first step in which it is run; there are none for those before.

    Source: Liao and Poggio 2016 (arXiv 1604.03640), section 3.4: statistics of their own for every step.
    """

    def __init__(self, norm: nn.Module, steps: int, first: int = 0) -> None:
        super().__init__()
        self.norms = nn.ModuleList(copied(norm) for _ in range(max(1, steps - first)))
        self.step = self.first = first

    def forward(self, x: Tensor) -> Tensor:
        return self.norms[min(max(self.step - self.first, 0), len(self.norms) - 1)](x)


def norms_of_steps(net: nn.Module, steps: int, first: Mapping[nn.Module, int]) -> list[StepNorm]:
    """Put a `StepNorm` in the place of some BatchNorms, in place, and return them.

    Args:
        net: what they are part of.
        steps: of the network.
        first: the first step of each. BatchNorms that are not among them stay.
    """
    made: dict[nn.Module, StepNorm] = {}
    for name, module in list(net.named_modules(remove_duplicate=False)):
        if module in first:
            made[module] = made.get(module) or StepNorm(module, steps, first[module])
            net.set_submodule(name, made[module])
    return list(made.values())


def settle(net: nn.Module) -> nn.Module:
    """Put the last step's BatchNorm in the place of every `StepNorm`, in place, and return the network."""
    for name, module in list(net.named_modules(remove_duplicate=False)):
        if isinstance(module, StepNorm):
            net.set_submodule(name, module.norms[-1])
    return net


@contextmanager
def called_norms(net: nn.Module) -> Iterator[Callable[[], set[nn.Module]]]:
    """Inside, BatchNorms of ``net`` that are called are noted; what is yielded gives those since it was last asked."""
    called: set[nn.Module] = set()

    def asked() -> set[nn.Module]:
        found = set(called)
        called.clear()
        return found

    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    handles = [module.register_forward_hook(lambda module, _inputs, _output: called.add(module)) for module in norms]
    try:
        yield asked
    finally:
        for handle in handles:
            handle.remove()
