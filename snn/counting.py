"""What a spiking network costs: spikes, and the synaptic operations they cause, exact at the borders of a picture."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from backbone.errors import must
from snn.timed import AlongTime, TimedNeurons

_BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class Synapses:
    """The structure of a spiking network, whatever its activity.

    Attributes:
        fan_out: neuron layer -> [C, H, W] (or [C]) float64, synapses that one spike of each neuron reaches. Max pools
            along time come after the neurons: what a spike causes depends on whether the pool lets it pass, so that
            what leaves the pool is counted, and a neuron that drives nothing else reaches no synapse by itself.
        relays: the names of those pools. A pool of drives, in front of neurons, is none: spikes reach its running sums.
        input_fan_out: [C, H, W] float64, synapses that one input value reaches, for inputs that are spikes.
        macs: multiplications of one analog forward pass on one image.
        analog_macs: those of them before the first neurons, paid once for a constant input.
        neurons: how many there are, the pools' outputs left out.
        analog_driven: those of them whose drive does not change over time when the input does not.
    """

    fan_out: Mapping[str, Tensor]
    relays: frozenset[str]
    input_fan_out: Tensor
    macs: int
    analog_macs: int
    neurons: int
    analog_driven: int


class _Paths(fx.Interpreter):
    """Runs a network of ones: every weight that is not zero becomes 1, every sum counts the synapses it adds up.

    Neuron outputs become leaves, so that the gradient of all inputs of all neurons is the number of synapses of each
    leaf: the transposed convolution of ones, for any graph. float64 holds these integers exactly.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.leaves: dict[str, Tensor] = {}
        self.relays: dict[str, Tensor] = {}
        self.inputs = torch.zeros((), dtype=torch.float64)
        self.macs = self.analog_macs = self.analog_driven = 0
        self.of_spikes = False

    def run_node(self, n: fx.Node) -> Any:
        self.of_spikes = any(str(source.target) in {**self.leaves, **self.relays} for source in n.all_input_nodes)
        return super().run_node(n)

    def call_module(self, target: Any, args: tuple, kwargs: dict) -> Any:
        module, x = self.submodules[str(target)], args[0]
        if isinstance(module, TimedNeurons):
            self.inputs = self.inputs + x.sum()
            self.analog_driven += 0 if x.requires_grad else x.numel()
            self.leaves[str(target)] = torch.ones_like(x).requires_grad_()
            return self.leaves[str(target)]
        if isinstance(module, AlongTime) and x.requires_grad:
            out = torch.ones_like(super().call_module(target, (x.detach(),), kwargs))
            if self.of_spikes:
                self.relays[str(target)] = out.requires_grad_()
                return out
            self.inputs = self.inputs + x.sum()  # its running sums are what the synapses reach
            return out + 0.0 * x.sum()  # driven by spikes, but by no synapse more
        if isinstance(module, _BATCHNORMS):
            return x  # a scaled synapse is one synapse
        if isinstance(module, nn.Conv2d | nn.Linear):
            return self.layer(module, x)
        if isinstance(module, nn.AvgPool2d | nn.AdaptiveAvgPool2d):
            return _summed(module, args, kwargs)
        return module(*args, **kwargs)

    def layer(self, module: nn.Conv2d | nn.Linear, x: Tensor) -> Tensor:
        macs = round(float(_ones(module, torch.ones_like(x)).sum()))
        self.macs += macs
        self.analog_macs += 0 if x.requires_grad else macs
        return _ones(module, x)

    def call_function(self, target: Any, args: tuple, kwargs: dict) -> Any:
        if target in (operator.mul, operator.truediv):
            return args[0]  # a scaled synapse is one synapse
        if target in (F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean):
            return _summed(target, args, kwargs)
        return super().call_function(target, args, kwargs)

    def call_method(self, target: Any, args: tuple, kwargs: dict) -> Any:
        if target in ("mul", "div"):
            return args[0]
        return _summed(target, args, kwargs) if target == "mean" else super().call_method(target, args, kwargs)


def synapses(graph: fx.GraphModule, head: nn.Linear, in_shape: tuple[int, int, int]) -> Synapses:
    """Count the synapses of a spiking network, padding left out: a border pixel reaches fewer neurons.

    A synapse is a weight that is not zero, between a neuron and one it drives (through a pooling layer, if any); a
    residual addition is one more per neuron, scaled or not. Biases and additions inside pooling are not counted.

    Args:
        graph: a network whose activations are `TimedNeurons`.
        head: its read-out, counted as synapses of the last neurons.
        in_shape: (C, H, W) of one image.
    """
    with torch.enable_grad(), torch.inference_mode(False):
        image = torch.ones(1, *in_shape, dtype=torch.float64, device=head.weight.device)
        paths = _Paths(graph)
        reached = _reached(paths, head, image)
        sources = {**paths.leaves, **paths.relays}
        fan_out = _gradients(reached, sources)
        analog = _Paths(graph)  # again, with the image as one more source: what it reaches, nothing else changes
        (input_fan_out,) = _gradients(_reached(analog, head, image.requires_grad_()), {"": image}).values()
    return Synapses(
        fan_out=fan_out,
        relays=frozenset(paths.relays),
        input_fan_out=input_fan_out,
        macs=paths.macs,
        analog_macs=paths.analog_macs,
        neurons=sum(leaf.numel() for leaf in paths.leaves.values()),
        analog_driven=paths.analog_driven,
    )


def macs(graph: fx.GraphModule, head: nn.Linear, in_shape: tuple[int, int, int]) -> int:
    """Multiplications by weights that are not zero of one forward pass on one image, padding left out.

    Args:
        graph: a traced network of any activations; normalisation counts as folded.
        head: its read-out.
        in_shape: (C, H, W) of one image.
    """
    paths = _Paths(graph)
    with torch.no_grad():
        _reached(paths, head, torch.ones(1, *in_shape, dtype=torch.float64, device=head.weight.device))
    return paths.macs


def _reached(paths: _Paths, head: nn.Linear, image: Tensor) -> Tensor:
    """How many synapses are reached in all, as a function of the sources."""
    features = paths.run(image)
    return paths.inputs.to(image.device) + paths.layer(head, features).sum()


def _gradients(reached: Tensor, sources: Mapping[str, Tensor]) -> dict[str, Tensor]:
    grads = torch.autograd.grad(reached, list(sources.values()), allow_unused=True) if sources else ()
    found = zip(sources.items(), grads, strict=True)
    return {name: torch.zeros_like(x[0]) if grad is None else grad[0].detach() for (name, x), grad in found}


def _ones(module: nn.Conv2d | nn.Linear, x: Tensor) -> Tensor:
    weight = (module.weight.detach() != 0).to(x.dtype)
    if isinstance(module, nn.Linear):
        return F.linear(x, weight)
    return F.conv2d(x, weight, None, module.stride, module.padding, module.dilation, module.groups)


def _summed(target: Any, args: tuple, kwargs: Mapping[str, Any]) -> Tensor:
    """A pooling operation with its averages turned into sums, so that each of its inputs counts as one path."""
    x = args[0]
    if isinstance(target, nn.AvgPool2d):
        return F.avg_pool2d(x, target.kernel_size, target.stride, target.padding, target.ceil_mode, divisor_override=1)
    if target is F.avg_pool2d:
        return F.avg_pool2d(*args, **{**kwargs, "divisor_override": 1})
    out: Any = target(*args, **kwargs) if callable(target) else x.mean(*args[1:], **kwargs)
    if isinstance(target, nn.AdaptiveAvgPool2d) or target is F.adaptive_avg_pool2d:
        rows, columns = (_bins(x.shape[d], out.shape[d], x) for d in (-2, -1))
        return out * rows[:, None] * columns
    return out * (x.numel() // out.numel())


def _bins(size: int, out: int, like: Tensor) -> Tensor:
    """[out]: how many of ``size`` inputs adaptive pooling averages for each output (they overlap when uneven)."""
    lengths = [-(-(i + 1) * size // out) - i * size // out for i in range(out)]
    return torch.tensor(lengths, dtype=like.dtype, device=like.device)


class Tally:
    """Spikes and synaptic operations of simulations, summed over images, up to each of some steps.

    Args:
        fan_out: of every neuron layer, as in `Synapses`.
        checkpoints: ascending step numbers; the last is the length of the simulation.

    Attributes:
        spikes, operations: [layers, checkpoints] float64, whole numbers; layers in the order of ``fan_out``.
        seen: the layers that were added to it.
    """

    def __init__(self, fan_out: Mapping[str, Tensor], checkpoints: Sequence[int]) -> None:
        self.fan_out = fan_out
        self.checkpoints = list(checkpoints)
        self._place = {layer: place for place, layer in enumerate(fan_out)}
        device = next(iter(fan_out.values())).device
        self.spikes = torch.zeros(len(fan_out), len(self.checkpoints), dtype=torch.float64, device=device)
        self.operations = torch.zeros_like(self.spikes)
        self.seen: set[str] = set()

    def add(self, layer: str, spikes: Tensor) -> None:
        """spikes: [T, B, C, ...] in {0, 1} of one layer.

        Raises:
            UserError: T is not the last checkpoint.
        """
        if len(spikes) != self.checkpoints[-1]:
            raise must("the simulation", f"{self.checkpoints[-1]} steps long", len(spikes), "Move the checkpoints.")
        self.seen.add(layer)
        batch, fan_out = spikes.shape[1], self.fan_out[layer].movedim(0, -1).flatten()
        rows = spikes.movedim(2, -1).reshape(-1, len(fan_out))  # no copy when channels are last in memory
        count = torch.zeros_like(fan_out)
        for place, (a, b) in enumerate(pairwise([0, *self.checkpoints])):
            part = rows[a * batch : b * batch]
            count += _fired(part)
            self.spikes[self._place[layer], place] += count.sum()
            self.operations[self._place[layer], place] += (count * fan_out).sum()

    def state_dict(self) -> dict[str, Any]:
        return {"spikes": self.spikes.cpu(), "operations": self.operations.cpu(), "seen": sorted(self.seen)}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.seen = set(saved["seen"])
        self.spikes.copy_(saved["spikes"])
        self.operations.copy_(saved["operations"])


def _fired(rows: Tensor) -> Tensor:
    """rows: [N, neurons] in {0, 1} -> [neurons] how many spikes; whole numbers below 2 ** 24 are exact in float32."""
    rows = rows if rows.dtype in (torch.float32, torch.float64) else rows.float()
    return rows.new_ones(len(rows)) @ rows
