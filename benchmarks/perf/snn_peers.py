"""One convolutional spiking network, written as each library's documentation recommends; part of ``snn_training``.

    conv 16 - LIF - average pool - conv 32 - LIF - average pool - linear 10 - LIF

All have the same weights, decay 0.9, threshold 1, a soft reset and the surrogate 1 / (1 + |d|)^2; each is called with
``x: [T, B, 1, 28, 28]`` and gives the spikes of every class summed over time, [B, 10]. What differs: snnTorch resets a
step late (its default), Norse and sinabs let the gradient into the reset (the others detach it), Norse fires above the
threshold and not at it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from engram.backbone.errors import must
from engram.snn.engines.layer import SpikingLayer
from engram.snn.neurons.firing import State
from engram.snn.neurons.options import NeuronOptions

DECAY = 0.9
POOL = 2


def parts() -> tuple[nn.Conv2d, nn.Conv2d, nn.Linear]:
    """The layers with weights, the same ones after the same seed."""
    layers = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1), nn.Linear(32 * 7 * 7, 10)
    with torch.no_grad():
        for layer in layers:
            layer.weight.mul_(3)  # so that spikes reach the last layer
    return layers


class Ours(nn.Module):
    """Time folded into the batch, one fused scan for each neuron layer, pooling within it.

    Args:
        pieces: parts of the run that are computed again in the backward pass, instead of being kept; 1: nothing is.
    """

    def __init__(self, pieces: int = 1) -> None:
        super().__init__()
        self.first, self.second, self.last = parts()
        options = NeuronOptions(decay=DECAY, surrogate="superspike", slope=1.0)
        self.neurons = nn.ModuleList([SpikingLayer(options, pool=pool) for pool in (POOL, POOL, 1)])
        self.pieces = pieces
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(self, x: Tensor, *states: State | None) -> tuple[Tensor, State, State, State]:
        """x: [T, B, 1, 28, 28] -> (spikes summed over time [B, 10], the states of the layers)."""
        folded = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        h, first = self._fire(0, self.first(folded), x, states)
        h, second = self._fire(1, self.second(h), x, states)
        h, last = self._fire(2, self.last(h.flatten(1)), x, states)
        return h.unflatten(0, x.shape[:2]).float().sum(0), first, second, last

    def _fire(self, index: int, h: Tensor, x: Tensor, states: tuple[State | None, ...]) -> tuple[Tensor, State]:
        layer = self.neurons[index]
        assert isinstance(layer, SpikingLayer)
        spikes, state = layer.scan(h.unflatten(0, x.shape[:2]), states[index])
        return spikes.flatten(0, 1), state

    def forward(self, x: Tensor) -> Tensor:
        if self.pieces == 1:
            return self.run(x, None, None, None)[0]
        total, states = torch.zeros(()), (None, None, None)
        for part in x.chunk(self.pieces):
            counts, *states = checkpoint(self.run, part, *states, use_reentrant=False)  # type: ignore[misc]
            total = total + counts
        return total


class Floor(nn.Module):
    """The same layers with ReLU, which knows no time: T x B independent images."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = parts()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        h = F.avg_pool2d(F.relu(self.first(h)), POOL)
        h = F.avg_pool2d(F.relu(self.second(h)), POOL)
        return F.relu(self.last(h.flatten(1))).unflatten(0, x.shape[:2]).float().sum(0)


class SnnTorch(nn.Module):
    """As in its tutorials 5 to 7: the whole network step by step, hidden states kept in the neurons."""

    def __init__(self) -> None:
        super().__init__()
        import snntorch
        from snntorch import surrogate, utils

        def leaky() -> nn.Module:
            return snntorch.Leaky(beta=DECAY, spike_grad=surrogate.fast_sigmoid(slope=1), init_hidden=True)

        first, second, last = parts()
        self.net = nn.Sequential(
            first, leaky(), nn.AvgPool2d(POOL), second, leaky(), nn.AvgPool2d(POOL), nn.Flatten(), last, leaky()
        )
        self.reset: Callable[[nn.Module], object] = utils.reset

    def forward(self, x: Tensor) -> Tensor:
        self.reset(self.net)
        return torch.stack([self.net(step) for step in x]).sum(0)


class Norse(nn.Module):
    """As in its introduction: ``SequentialState``, step by step, the state handed on.

    Attributes:
        weights_larger: its weights are that much larger, because its cells multiply their input by 1 - decay; Adam
            needs a rate as much larger to take the same steps.
    """

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import norse.torch as norse
            from norse.torch.functional.reset import reset_subtract
        rate = 1 - DECAY
        self.weights_larger = 1 / rate
        cells = [
            norse.LIFBoxCell(
                norse.LIFBoxParameters(tau_mem_inv=torch.tensor(rate), method="super", reset_method=reset_subtract),
                dt=1.0,
            )
            for _ in range(3)
        ]
        first, second, last = parts()
        with torch.no_grad():
            for layer in (first, second, last):
                layer.weight.div_(rate)
                assert layer.bias is not None
                layer.bias.div_(rate)
        pool = nn.AvgPool2d(POOL)
        self.net = norse.SequentialState(first, cells[0], pool, second, cells[1], pool, nn.Flatten(), last, cells[2])

    def forward(self, x: Tensor) -> Tensor:
        state, spikes = None, []
        for step in x:
            fired, state = self.net(step, state)
            spikes.append(fired)
        return torch.stack(spikes).sum(0)


def _optional(package: str, *names: str) -> list[Any]:
    """Parts of a package that only the extra ``perf`` installs: imported by name, so that types check without it."""
    module = import_module(package)
    inner = [name for name in names if find_spec(f"{package}.{name}") is not None]
    return [import_module(f"{package}.{name}") if name in inner else getattr(module, name) for name in names]


class SpikingJelly(nn.Module):
    """As it recommends for speed: multi-step mode, its torch backend (the others need CUDA)."""

    def __init__(self) -> None:
        super().__init__()
        functional, layer, neuron, surrogate = _optional(
            "spikingjelly.activation_based", "functional", "layer", "neuron", "surrogate"
        )

        def lif() -> nn.Module:
            return neuron.LIFNode(
                tau=1 / (1 - DECAY),
                decay_input=False,
                v_reset=None,
                detach_reset=True,
                surrogate_function=surrogate.SuperSpike(alpha=1.0),
                step_mode="m",
            )

        first, second, last = parts()
        self.net = nn.Sequential(
            layer.SeqToANNContainer(first),
            lif(),
            layer.SeqToANNContainer(nn.AvgPool2d(POOL)),
            layer.SeqToANNContainer(second),
            lif(),
            layer.SeqToANNContainer(nn.AvgPool2d(POOL), nn.Flatten(), last),
            lif(),
        )
        self.reset: Callable[[nn.Module], object] = functional.reset_net

    def forward(self, x: Tensor) -> Tensor:
        self.reset(self.net)
        return self.net(x).sum(0)


class Sinabs(nn.Module):
    """As in its tutorials: squeezing layers in a Sequential, batch and time folded; one spike a step at most."""

    def __init__(self) -> None:
        super().__init__()
        layers, activation, reset = _optional("sinabs", "layers", "activation", "reset_states")

        def superspike(v: Tensor, threshold: Tensor) -> Tensor:
            return 1 / (1 + (v - threshold).abs()).square()

        self.squeezing = [
            layers.LIFSqueeze(
                tau_mem=-1 / math.log(DECAY),
                spike_fn=activation.SingleSpike,
                surrogate_grad_fn=superspike,
                norm_input=False,
                batch_size=1,
            )
            for _ in range(3)
        ]
        a, b, c = self.squeezing
        first, second, last = parts()
        self.net = nn.Sequential(first, a, nn.AvgPool2d(POOL), second, b, nn.AvgPool2d(POOL), nn.Flatten(), last, c)
        self.reset: Callable[[nn.Module], object] = reset

    def forward(self, x: Tensor) -> Tensor:
        self.reset(self.net)
        for layer in self.squeezing:
            layer.batch_size = x.shape[1]
        out = self.net(x.transpose(0, 1).flatten(0, 1))  # images innermost in time, as it wants them
        return out.unflatten(0, (x.shape[1], x.shape[0])).sum(1)


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "ours": Ours,
    "floor": Floor,
    "snnTorch": SnnTorch,
    "Norse": Norse,
    "SpikingJelly": SpikingJelly,
    "sinabs": Sinabs,
}
PEERS = ("snnTorch", "Norse", "SpikingJelly", "sinabs")


def build(name: str, seed: int = 0) -> nn.Module:
    """One of `NETWORKS` with the weights of that seed.

    Raises:
        UserError: its library is not installed.
    """
    torch.manual_seed(seed)
    try:
        return NETWORKS[name]()
    except ModuleNotFoundError as error:
        raise must(name, "installed for this comparison", f"no module {error.name!r}", "Run: make perf") from error
