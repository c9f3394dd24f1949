"""BatchNorm that knows which of two streams it is given: their values are distributed differently."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engram.backbone.nets.plain import copied


class StreamNorm(nn.Module):
    """A BatchNorm for each of two streams, weights and statistics, both of which begin as the same one.

    ``stream``, 0 or 1, says which is meant; whoever runs a stream sets it first.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norms = nn.ModuleList([norm, copied(norm)])
        self.stream = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.norms[self.stream](x)


def norms_of_streams(net: nn.Module, run: Callable[[], object]) -> list[StreamNorm]:
    """Put a `StreamNorm` in the place of every BatchNorm of ``net`` that ``run`` calls, in place, and return them."""
    called: dict[nn.Module, StreamNorm] = {}

    def note(module: nn.Module, _inputs: object, _output: object) -> None:
        called.setdefault(module, StreamNorm(module))

    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    handles = [module.register_forward_hook(note) for module in norms]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    for name, module in list(net.named_modules(remove_duplicate=False)):
        if module in called:
            net.set_submodule(name, called[module])
    return list(called.values())
