"""Gates on the hidden units of any network: what its activations give, times a factor per channel.

A gate sits on a module, not in a class of networks: a forward hook where the module is called, a wrapped ``send`` where
it is a layer of spiking neurons, whose simulation calls ``scan`` and ``send``. It holds no parameters or buffers, so
that a state dict is the same with it. A deep copy of the network gets gates of its own, which keep the values they had:
a copy computes what the network computed when it was copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from engram.backbone.errors import must

_ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus),
    *(nn.Hardswish, nn.Hardtanh, nn.Tanh, nn.Sigmoid),
)


class Gate:
    """Factors for the channels of one activation, one set for every strategy that gates it.

    Attributes:
        values: owner -> [channels], in [0, 1]; an owner that is not there leaves the units as they are.
        channels: how many.
        dimension: which one of the activation's output they are.
    """

    channels = 0
    dimension = 1

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Gate:
        """Values that are being learned are part of a graph, which a copy is not."""
        copied = memo[id(self)] = Gate()
        copied.channels, copied.dimension = self.channels, self.dimension
        copied.values = {owner: value.detach().clone() for owner, value in self.values.items()}
        return copied

    def apply(self, units: Tensor, timed: int = 0) -> Tensor:
        """units: [B, C, ...], behind ``timed`` dimensions of time -> the same shape."""
        dimension = self.dimension + timed if self.dimension > 0 else self.dimension
        after = units.ndim - 1 - dimension if dimension > 0 else -1 - dimension
        for value in self.values.values():
            units = units * value.to(units.dtype).view(-1, *[1] * after)
        return units

    def hook(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """A forward hook."""
        return self.apply(output) if self.values else output


class GatedSend:
    """``send`` of a layer of spiking neurons, gated. Units: [T, B, C, ...]."""

    def __init__(self, send: Any, gate: Gate) -> None:
        self.send, self.gate = send, gate

    def __call__(self, spikes: Tensor) -> Tensor:
        return self.gate.apply(self.send(spikes), timed=1)


def gates_of(model: nn.Module, frames: int | None = None) -> dict[str, Gate]:
    """The gates on the hidden activations of ``model.backbone``, by module name, in the order of its modules.

    They are put there the first time, and found again after that.

    Args:
        model: a classifier, on its device.
        frames: how many an input has, where inputs are recordings.

    Raises:
        UserError: it has no activations that are modules, or one module for activations of several widths.
    """
    net: Any = model.backbone
    sites = {name: module for name, module in net.named_modules() if _is_activation(module)}
    found = {name: module.__dict__["gate"] for name, module in sites.items() if "gate" in module.__dict__}
    if found:
        return found
    with _watched(net, sites) as seen:
        _look(net, frames)
    if not seen:
        remedy = "Use --backbone mlp or vgg-tiny, or give every activation an nn.Module."
        raise must("a network to gate", "one whose activations are modules", type(net).__name__, remedy)
    for name, (channels, dimension) in seen.items():
        gate = Gate()
        gate.channels, gate.dimension = channels, dimension
        _put(sites[name], gate)
    return {name: module.__dict__["gate"] for name, module in sites.items() if name in seen}


def _is_activation(module: nn.Module) -> bool:
    """Torch's own, a whole activation of a plugin (``leaf``), or neurons that ``send``."""
    return isinstance(module, _ACTIVATIONS) or bool(getattr(module, "leaf", False)) or hasattr(module, "send")


def _put(module: nn.Module, gate: Gate) -> None:
    module.__dict__["gate"] = gate  # beside the modules and the hooks, to be found again
    if hasattr(module, "send"):
        module.__dict__["send"] = GatedSend(module.send, gate)
    else:
        module.register_forward_hook(gate.hook)


@torch.no_grad()
def _look(net: Any, frames: int | None) -> None:
    """Run a blank image, or a recording of them, in evaluation mode."""
    device = next(net.parameters()).device
    shape = (1, *net.in_shape) if frames is None else (1, frames, *net.in_shape)
    training = net.training
    net.eval()
    net(torch.zeros(shape, device=device))
    net.train(training)


@contextmanager
def _watched(net: nn.Module, sites: Mapping[str, nn.Module]) -> Iterator[dict[str, tuple[int, int]]]:
    """Gather (channels, their dimension) of every activation that runs, by name.

    Channels are dimension 1, but the last one where the layer that ran before was a linear one.
    """
    seen: dict[str, tuple[int, int]] = {}
    last: list[nn.Module] = []
    handles = [module.register_forward_hook(lambda module, *_: last.append(module)) for module in _layers(net)]

    def see(name: str, units: Tensor, timed: int = 0) -> None:
        linear = bool(last) and isinstance(last[-1], nn.Linear) and units.ndim - timed > 2
        found = (units.shape[-1], -1) if linear else (units.shape[1 + timed], 1)
        if seen.setdefault(name, found) != found:
            got = f"{found[0]} and {seen[name][0]} units at {name}"
            raise must("activations to gate", "modules of their own", got, "Do not share one between layers.")

    for name, module in sites.items():
        if hasattr(module, "send"):
            module.__dict__["send"] = _Watched(module.send, name, see)
        else:
            handles.append(module.register_forward_hook(partial(_see_output, see, name)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
        for module in sites.values():
            module.__dict__.pop("send", None)


def _see_output(see: Any, name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
    see(name, output)


class _Watched:
    """``send`` while a network is looked at."""

    def __init__(self, send: Any, name: str, see: Any) -> None:
        self.send, self.name, self.see = send, name, see

    def __call__(self, spikes: Tensor) -> Tensor:
        units = self.send(spikes)
        self.see(self.name, units, timed=1)
        return units


def _layers(net: nn.Module) -> list[nn.Module]:
    """The layers with weights between channels."""
    return [module for module in net.modules() if getattr(getattr(module, "weight", None), "ndim", 0) >= 2]
