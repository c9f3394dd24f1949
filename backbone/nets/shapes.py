"""What the values of a traced network look like, found by running it once."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn


@torch.no_grad()
def value_shapes(
    graph: fx.GraphModule, in_shape: tuple[int, ...], keeping: tuple[type[nn.Module], ...] = ()
) -> dict[fx.Node, torch.Size]:
    """The shapes of all tensors for one blank image, in evaluation mode, by node in the order they run.

    Args:
        graph: left as it is; the image has the device and type of its first parameter or buffer.
        in_shape: (C, H, W) of the image, which comes as [1, C, H, W].
        keeping: kinds of modules that are not run, as what they take from the graph is no image: what leaves them has
            the shape of what enters.
    """
    like = next((t for t in chain(graph.parameters(), graph.buffers()) if t.is_floating_point()), torch.empty(0))
    modes = [(module, module.training) for module in graph.modules()]
    run = _Shapes(graph.eval(), keeping)
    try:
        run.run(torch.zeros(1, *in_shape, device=like.device, dtype=like.dtype))
    finally:
        for module, training in modes:
            module.training = training
    return run.found


class _Shapes(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule, keeping: tuple[type[nn.Module], ...]) -> None:
        super().__init__(graph)
        self.keeping, self.found = keeping, dict[fx.Node, torch.Size]()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.found[n] = value.shape
        return value

    def call_module(self, target: Any, args: tuple, kwargs: dict) -> Any:
        kept = isinstance(self.submodules[str(target)], self.keeping)
        return args[0].clone() if kept else super().call_module(target, args, kwargs)
