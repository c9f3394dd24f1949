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


SEVERAL = 3
"""Images in the batch whose shapes are noted: no size that code is likely to have written into it."""


@torch.no_grad()
def note_shapes(graph: fx.GraphModule, in_shape: tuple[int, ...]) -> None:
    """Leave in ``node.meta["shape"]`` the shape that every value made of images has for a batch of `SEVERAL` images.

    Where the code fails on such a batch, ``node.meta["error"]`` says how, and what comes later has no shape.

    Args:
        graph: in evaluation mode.
        in_shape: (C, H, W) of one image.
    """
    like = next((t for t in chain(graph.parameters(), graph.buffers()) if t.is_floating_point()), torch.empty(0))
    for node in graph.graph.nodes:
        node.meta.pop("shape", None)
    try:
        _Notes(graph).run(torch.zeros(SEVERAL, *in_shape, device=like.device, dtype=like.dtype))
    except _Stopped:
        return


class _Stopped(Exception):
    """A value could not be computed, and it was noted why."""


class _Notes(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        try:
            value = super().run_node(n)
        except Exception as error:  # whatever a stranger's code does with a batch
            n.meta["error"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            raise _Stopped from error
        made_of_images = n.op == "placeholder" or any("shape" in source.meta for source in n.all_input_nodes)
        if isinstance(value, Tensor) and made_of_images and n.op != "output":
            n.meta["shape"] = value.shape
        return value


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
