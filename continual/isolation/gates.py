"""Gates on the hidden units of any network: what its activations give, times a factor per channel.

They are a tap that stays on the network (`engram.backbone.nets.tapped.attach`): it holds no parameters or buffers, so
that a state dict is the same with it. A deep copy of the network gets gates of its own, which keep the values they had:
a copy computes what the network computed when it was copied.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from engram.backbone.contract import Site
from engram.backbone.errors import must
from engram.backbone.nets.tapped import attach, attached, look
from engram.backbone.nets.taps import FEATURES


class Gate:
    """Factors for the channels of one activation, one set for every strategy that gates it.

    Args:
        channels: how many.
        dimension: which one of the activation's output [B, C, ...] they are.

    Attributes:
        values: owner -> [channels], in [0, 1]; an owner that is not there leaves the units as they are.
    """

    def __init__(self, channels: int, dimension: int) -> None:
        self.channels, self.dimension = channels, dimension
        self.values: dict[str, Tensor] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Gate:
        """Values that are being learned are part of a graph, which a copy is not."""
        copied = memo[id(self)] = Gate(self.channels, self.dimension)
        copied.values = {owner: value.detach().clone() for owner, value in self.values.items()}
        return copied

    def apply(self, units: Tensor) -> Tensor:
        """units: [S, B, C, ...] -> the same shape."""
        after = units.ndim - 2 - self.dimension if self.dimension > 0 else -1 - self.dimension
        for value in self.values.values():
            units = units * value.to(units.dtype).view(-1, *[1] * after)
        return units


class Gates:
    """A tap: the gate of every activation, by the name of its site."""

    def __init__(self, gates: dict[str, Gate]) -> None:
        self.gates = gates

    def __call__(self, site: Site, value: Tensor) -> Tensor:
        gate = self.gates.get(site.name) if site.stage is None else None
        return value if gate is None else gate.apply(value)


def gates_of(model: nn.Module, frames: int | None = None) -> dict[str, Gate]:
    """The gates on the hidden activations of ``model.backbone``, by module name, in the order of its modules.

    They are put there the first time, and found again after that.

    Args:
        model: a classifier, on its device.
        frames: how many an input has, where inputs are recordings.

    Raises:
        UserError: it has no activations that are modules, or cannot be tapped.
    """
    net: Any = model.backbone
    found = next((tap for tap in attached(net) if isinstance(tap, Gates)), None)
    if found is None:
        found = Gates(_gates_for(net, frames))
        attach(net, found)
    return found.gates


def _gates_for(net: nn.Module, frames: int | None) -> dict[str, Gate]:
    """A gate for every activation that runs, in all of its steps; what leads back in a network has none.

    Channels are dimension 1, but the last one where the layer that ran before was a linear one.
    """
    seen: dict[str, Gate] = {}
    last: list[nn.Module] = []
    order = {name: place for place, (name, _) in enumerate(net.named_modules())}

    def see(site: Site, value: Tensor) -> Tensor:
        if site.stage is None and site.name != FEATURES and site.name.partition("#")[0] in order:
            linear = bool(last) and isinstance(last[-1], nn.Linear) and value.ndim > 3
            seen[site.name] = Gate(value.shape[-1], -1) if linear else Gate(value.shape[2], 1)
        return value

    with ExitStack() as hooks:
        for module in _layers(net):
            hooks.callback(module.register_forward_hook(lambda module, *_: last.append(module)).remove)
        look(net, see, frames)
    if not seen:
        remedy = "Use --backbone mlp or vgg-tiny, or give every activation an nn.Module."
        raise must("a network to gate", "one whose activations are modules", type(net).__name__, remedy)
    return {
        name: seen[name] for name in sorted(seen, key=lambda name: (order[name.partition("#")[0]], len(name), name))
    }


def _layers(net: nn.Module) -> list[nn.Module]:
    """The layers with weights between channels."""
    weights = {name.rpartition(".")[0] for name, p in net.named_parameters() if p.ndim >= 2}
    return [module for name, module in net.named_modules() if name in weights]
