"""What a forward pass computes: floating-point operations of a network as it runs, and its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


def flops_per_image(network: nn.Module, images: Tensor) -> float:
    """Floating-point operations of one image, counted while the network runs on some: all of its steps.

    Counted are the multiplications and additions of convolutions, transposed ones included, and of matrix products, as
    they are carried out: a layer that runs at every step counts at every step, one that runs once counts once, and a
    backward pass that is part of the answer counts too. A multiply-accumulate is two operations. Biases, activations,
    normalisation, pooling, products of gates and additions of shortcuts are not counted, and neither is what runs
    outside PyTorch's operations (a compiled neuron).

    Args:
        network: a `engram.backbone.nets.classifier.Classifier`, or anything that takes such images; it runs in
            evaluation mode.
        images: [N, C, H, W] or [N, T, C, H, W], where the network is. A network whose work depends on the image (one
            that stops early, or runs until it settles) is counted on these.
    """
    training = network.training
    network.eval()
    with torch.no_grad(), _Counter() as counter:
        network(images)
    network.train(training)
    return counter.total / len(images)


class _Counter(TorchDispatchMode):
    """Adds up what PyTorch's own formulas say of every operation; its own counter does too, but imports the compiler,
    which takes longer than all else.
    """

    total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True, as it is unless said, imports the compiler to keep it out

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula: Callable[..., int] | None = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def parameter_count(network: nn.Module) -> int:
    """How many numbers its parameters are; one that several layers share counts once."""
    return sum(parameter.numel() for parameter in network.parameters())
