"""What a spiking network costs: spikes, and the synaptic operations they cause, exact at the borders of a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx, nn

from engram.backbone.errors import must
from engram.snn.graph.paths import Kind, Paths


@dataclass(frozen=True)
class Synapses:
    """The structure of a spiking network, whatever its activity.

    Attributes:
        fan_out: neuron layer -> [C, H, W] (or [C]) float64, synapses that one spike of each neuron reaches. The same
            for relays, and each of their values that is not zero. A neuron that drives relays alone reaches no synapse
            by itself.
        relays: those names in ``fan_out`` that are no neuron layers. They stand for values that are made anew from what
            spikes reach and enter another layer: spikes that leave a max pool, results of an analog activation, of a
            product of values, or of a layer that no neurons follow, and constants that enter a layer beside spikes.
            Whether they are zero only a run can say.
        input_fan_out: [C, H, W] float64, synapses that one input value reaches, for inputs that are spikes: those of
            the layers (or neurons) that take the input itself.
        macs: multiplications of one analog forward pass on one image.
        analog_macs: those of them before the first neurons: done once where the input is constant, else at every step.
        neurons: how many there are, relays left out.
        analog_driven: those of them whose drive does not change over time when the input does not.
    """

    fan_out: Mapping[str, Tensor]
    relays: frozenset[str]
    input_fan_out: Tensor
    macs: int
    analog_macs: int
    neurons: int
    analog_driven: int


def relay(node: fx.Node) -> str:
    """The name in `Synapses.fan_out` of the value a node gives; no module has such a name."""
    return f"%{node.name}"


def synapses(graph: fx.GraphModule, head: nn.Linear, in_shape: tuple[int, int, int]) -> Synapses:
    """Count the synapses of a spiking network, exactly at the borders of a picture, in every padding mode.

    A synapse is a weight that is not zero, at one place of a convolution. What a layer does in a run are the values it
    receives that are not zero, times the weights they reach. Spikes keep their identity through whatever is linear
    without weights of its own (averages, sums, factors, normalisation, which count as folded into the layer behind):
    each of four spikes under an average pool reaches the pool's synapses. Any other operation makes values anew, which
    count by themselves (`Synapses.relays`). A residual addition is one more synapse per neuron, scaled or not. Biases
    and additions inside pooling are not counted.

    Args:
        graph: a network whose activations are `TimedNeurons`; normalisation need not be folded.
        head: its read-out, counted as synapses of the last neurons.
        in_shape: (C, H, W) of one image.
    """
    with torch.enable_grad(), torch.inference_mode(False):
        paths, image = _counted(graph, head, in_shape)
        leaves = {relay(node): (leaf, paths.kinds[node]) for node, leaf in paths.leaves.items()}
        reached = _gradients(paths.weights, {name: leaf for name, (leaf, _) in leaves.items()} | paths.neurons)
        direct = {name: leaf for name, (leaf, kind) in leaves.items() if kind is Kind.SPIKES} | paths.neurons
        for name, more in _gradients(paths.sums, direct).items():
            reached[name] = reached[name] + more
        (input_fan_out,) = _gradients(paths.input_weights, {"": image}).values()
    relays = {name for name in leaves if bool(reached[name].any())}
    return Synapses(
        fan_out={name: fan_out for name, fan_out in reached.items() if name in paths.neurons or name in relays},
        relays=frozenset(relays),
        input_fan_out=input_fan_out,
        macs=paths.macs,
        analog_macs=paths.analog_macs,
        neurons=sum(leaf.numel() for leaf in paths.neurons.values()),
        analog_driven=paths.analog_driven,
    )


def macs(graph: fx.GraphModule, head: nn.Linear, in_shape: tuple[int, int, int]) -> int:
    """Multiplications by weights that are not zero of one forward pass on one image, padding with zeros left out.

    Args:
        graph: a traced network of any activations; normalisation counts as folded.
        head: its read-out.
        in_shape: (C, H, W) of one image.
    """
    with torch.inference_mode(False):
        return _counted(graph, head, in_shape)[0].macs


def _counted(graph: fx.GraphModule, head: nn.Linear, in_shape: tuple[int, int, int]) -> tuple[Paths, Tensor]:
    """A run on counts, and the image it began with."""
    image = torch.ones(1, *in_shape, dtype=torch.float64, device=head.weight.device, requires_grad=True)
    paths = Paths(graph, in_shape)
    paths.read_out(head, paths.run(image))
    return paths, image


def _gradients(total: Tensor | float, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What every leaf adds to a total, [C, ...] each; 0 where nothing leads from one to the other."""
    grads: Sequence[Tensor | None] = [None] * len(leaves)
    if leaves and isinstance(total, Tensor) and total.requires_grad:
        grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, retain_graph=True)
    found = zip(leaves.items(), grads, strict=True)
    return {name: torch.zeros_like(x[0]) if grad is None else grad[0].detach() for (name, x), grad in found}


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
        """spikes: [T, B, C, ...] in {0, 1} of one layer, or bool: which values of a relay are not zero.

        Raises:
            UserError: T is not the last checkpoint.
        """
        if len(spikes) != self.checkpoints[-1]:
            raise must("the simulation", f"{self.checkpoints[-1]} steps long", len(spikes), "Move the checkpoints.")
        self.seen.add(layer)
        batch, fan_out = spikes.shape[1], self.fan_out[layer]
        if fan_out.ndim > 1:  # no copy when channels are last in memory
            fan_out, spikes = fan_out.movedim(0, -1), spikes.movedim(2, -1)
        fan_out, rows = fan_out.flatten(), spikes.reshape(-1, fan_out.numel())
        count = torch.zeros_like(fan_out)
        for place, (a, b) in enumerate(pairwise([0, *self.checkpoints])):
            part = rows[a * batch : b * batch]
            count += _fired(part)
            self.spikes[self._place[layer], place] += count.sum()
            self.operations[self._place[layer], place] += (count * fan_out).sum()

    def of(self, layer: str) -> tuple[float, float]:
        """Spikes and operations of one layer in all steps."""
        return tuple(float(sums[self._place[layer], -1]) for sums in (self.spikes, self.operations))  # type: ignore[return-value]

    def merge(self, other: Tally) -> None:
        """Add what another simulation of these images did before the first step of this one."""
        self.seen |= other.seen
        self.spikes += other.spikes[:, -1:]
        self.operations += other.operations[:, -1:]

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
