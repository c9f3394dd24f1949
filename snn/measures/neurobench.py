"""NeuroBench's system metrics of analog and spiking networks, by NeuroBench's own definitions.

They agree with the package's (2.3) on the same networks, except where it depends on something it should not:

- An operation is an accumulate (AC) if all inputs of its layer are in {-1, 0, 1}, otherwise a multiply-accumulate. We
  decide that once per layer over everything seen; the package for every batch and step anew, so that an average pool's
  output counts as AC in a step in which few neurons fire, and its split changes with the batch size.
- Sums are integers here and float32 there, inexact from 2 ** 24 operations a layer and call.
- A layer counts as often as it runs. What a still image passes before the first neurons runs once here for all steps,
  but at every step in a network written step by step; give frames, [B, T, C, H, W], to count it at each.
- Membrane updates are counted for neurons of any kind; the package knows only those of snnTorch.
- The footprint leaves potentials out; the package counts them after a run, as many as the last batch left in snnTorch's
  buffers.

Both count operations at the borders exactly, leave biases out, take averages over images and sums over steps. In
`engram.snn.simulation.counting` the definitions differ: here a scaled or average-pooled spike is a MAC, a pooled value
counts once however many spikes made it, and a residual addition is nothing. How padding is counted is the same.

Source: Yik et al. 2025 (doi 10.1038/s41467-025-56739-4, arXiv 2304.04640), section "Metrics".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from engram.backbone.contract import Row
from engram.backbone.nets.classifier import Classifier
from engram.snn.graph.linearity import pattern, plain, reached
from engram.snn.neurons.integrate_fire import IntegrateFire, if_scan, per_neuron
from engram.snn.neurons.timed import TimedNeurons

_LAYERS = (nn.Conv2d, nn.Linear)
_ACTIVATIONS = (nn.ReLU, nn.Sigmoid)


def footprint_bytes(net: nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*net.parameters(), *net.buffers()))


def connection_sparsity(net: nn.Module) -> float:
    """Share of weights that are zero, over all convolutions and linear layers."""
    weights = [module.weight for module in net.modules() if isinstance(module, _LAYERS)]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


@dataclass
class _Layer:
    """What one convolution or linear layer did. Counts of operations are exact whole numbers."""

    binary: bool = True
    effective: int = 0
    dense: int = 0
    fan_out: dict[torch.Size, tuple[Tensor, int]] = field(default_factory=dict)

    @torch.no_grad()
    def count(self, module: nn.Conv2d | nn.Linear, x: Tensor) -> None:
        """x: [..., C, H, W] or [..., features] inputs, of images, of steps, or of both."""
        shape = x.shape[-3:] if isinstance(module, nn.Conv2d) else x.shape[-1:]
        if shape not in self.fan_out:
            dense = _fan_out(module, shape, torch.ones_like(module.weight, dtype=torch.float64))
            self.fan_out[shape] = _fan_out(module, shape, pattern(module.weight)), int(dense.sum())
        fan_out, dense = self.fan_out[shape]
        rows = x.reshape(-1, *shape)
        active = rows != 0
        self.effective += int((active.sum(0) * fan_out).sum())
        self.dense += len(rows) * dense
        self.binary = self.binary and bool((~active | (rows.abs() == 1)).all())


def _fan_out(module: nn.Conv2d | nn.Linear, shape: torch.Size, weight: Tensor) -> Tensor:
    """[C, H, W] or [features] float64: how many outputs each input reaches, the gradient of their sum."""
    with torch.enable_grad(), torch.inference_mode(False):
        inputs = torch.ones(1, *shape, dtype=torch.float64, device=weight.device, requires_grad=True)
        return torch.autograd.grad(reached(module, inputs, weight.clone()).sum(), inputs)[0][0]


class Workload:
    """Listens to a network while it runs, as a context manager; counts are sums over everything that ran inside.

    Convolutions, linear layers, ReLUs and sigmoids must be modules: neither we nor NeuroBench see functions. Neurons
    are `IntegrateFire`, called as modules, or layers with a ``scan`` (`engram.snn.engines.layer.SpikingLayer`), however
    run.

    Args:
        net: what runs; its weights must not change meanwhile. Counting repeats the recurrence of every neuron layer.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.layers: dict[str, _Layer] = {}
        self.active = self.activations = self.membrane_updates = 0
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        inside = tuple(f"{name}." for name, module in self.net.named_modules() if isinstance(module, TimedNeurons))
        for name, module in self.net.named_modules():
            if name.startswith(inside):
                continue  # part of a neuron layer, which counts as a whole
            if isinstance(module, _LAYERS):
                self._listen_to_layer(name, module)
            elif isinstance(module, TimedNeurons) and not isinstance(module, IntegrateFire):
                self._listen_to_scan(module)
            elif isinstance(module, (IntegrateFire, *_ACTIVATIONS)):
                self._undo.append(module.register_forward_hook(self._put_out).remove)
                if isinstance(module, IntegrateFire):
                    self._undo.append(module.register_forward_pre_hook(self._integrate_and_fire).remove)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._undo:
            self._undo.pop()()

    @property
    def effective(self) -> int:
        """Operations of all layers with inputs and weights that are not zero, of everything that ran inside."""
        return sum(layer.effective for layer in self.layers.values())

    def row(self, images: int) -> Row:
        """Averages over images, sums over steps.

        activation_sparsity: share of zeros in what activations and neurons put out, at all steps. effective_acs,
        effective_macs: operations with inputs and weights that are not zero. dense_operations: with all of them.
        membrane_updates: potentials that changed from one step to the next, and all of the first step.
        """
        acs = sum(layer.effective for layer in self.layers.values() if layer.binary)
        return {
            "footprint_bytes": footprint_bytes(self.net),
            "connection_sparsity": connection_sparsity(self.net),
            "activation_sparsity": 1 - self.active / self.activations if self.activations else 0.0,
            "effective_acs": acs / images,
            "effective_macs": (self.effective - acs) / images,
            "dense_operations": sum(layer.dense for layer in self.layers.values()) / images,
            "membrane_updates": self.membrane_updates / images,
        }

    def _listen_to_layer(self, name: str, module: nn.Conv2d | nn.Linear) -> None:
        layer, counted = self.layers.setdefault(name, _Layer()), plain(module)
        assert isinstance(counted, _LAYERS)
        self._undo.append(module.register_forward_pre_hook(lambda _m, args: layer.count(counted, args[0])).remove)

    def _listen_to_scan(self, module: Any) -> None:
        """Layers that hand their state on: whoever runs them calls ``scan``, whole or in parts."""
        scan = module.scan

        def heard(drive: Tensor, state: Any = None) -> Any:
            spikes, end = scan(drive, state)
            self._activity(spikes)
            v = None if state is None else state.v
            for x in drive.split(1):
                _, state = scan(x, state)
                self._potential(v, state.v)
                v = state.v
            return spikes, end

        module.scan = heard
        self._undo.append(lambda: delattr(module, "scan"))

    def _integrate_and_fire(self, neurons: IntegrateFire, args: tuple[Tensor, ...]) -> None:
        """args: drive [T, B, C, ...], and where the spikes go and the first potential [B, C, ...], if given."""
        drive, given = args[0], args[2] if len(args) > 2 else None
        v = neurons.begin(drive[0]) if given is None else given.clone()
        current, before = per_neuron(neurons.current, drive[0]), None
        for x in drive.split(1):
            if_scan(x, v, torch.empty_like(x), current)
            self._potential(before, v)
            before = v.clone()

    def _put_out(self, _module: nn.Module, _args: Any, out: Tensor) -> None:
        self._activity(out)

    def _activity(self, out: Tensor) -> None:
        self.active += int(torch.count_nonzero(out))
        self.activations += out.numel()

    def _potential(self, before: Tensor | None, after: Tensor) -> None:
        """Both [B, C, ...], or [B, C, ...] after the first step and None."""
        self.membrane_updates += after.numel() if before is None else int((before != after).sum())


@torch.inference_mode()
def neurobench(model: Classifier, batches: Iterable[Tensor]) -> Row:
    """NeuroBench's metrics of a classifier; its read-out runs at every step.

    Args:
        model: in evaluation mode, of any backbone.
        batches: images as the model takes them, [B, C, H, W] or [B, T, C, H, W].

    Returns: the row of `Workload.row`.
    """
    images = 0
    with Workload(model) as work:
        for batch in batches:
            model.head(model.backbone.forward_steps(model.normalise(batch)))  # type: ignore[operator]
            images += len(batch)
    return work.row(images)
