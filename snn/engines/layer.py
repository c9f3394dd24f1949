"""A layer of spiking neurons: the parameters, and an engine that runs them over time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from engram.backbone.errors import UserError, must
from engram.snn.engines import engine
from engram.snn.neurons.firing import Params, State
from engram.snn.neurons.options import NeuronOptions
from engram.snn.neurons.timed import TimedNeurons


class SpikingLayer(TimedNeurons):
    """Stands where a ReLU stood. Holds parameters only: the state is an argument and a result of `scan`.

    Args:
        options: what neurons, and which engine runs them.
        threshold: [C], one for each channel, in place of ``options.threshold``.
        pool: the spikes leave as their means over windows of pool x pool, as if `torch.nn.AvgPool2d` stood behind; the
            fused engine does both in one pass over memory.

    Raises:
        UserError: the options contradict each other, the engine cannot express them or is not installed.
    """

    threshold: Tensor
    decay: Tensor

    def __init__(self, options: NeuronOptions, threshold: Tensor | None = None, pool: int = 1) -> None:
        super().__init__()
        if problems := options.problems():
            raise UserError("\n".join(problems))
        self.options = options = options.filled()
        self.run, self.pool = engine(options.engine), pool
        value = torch.tensor(options.threshold) if threshold is None else threshold.detach().clone()
        self.register_buffer("threshold", value)
        decay = 1.0 if options.decay is None else options.decay
        if options.neuron == "plif":
            self.decay_logit = nn.Parameter(torch.tensor(math.log(decay / (1 - decay))))
        else:
            self.register_buffer("decay", torch.tensor(decay))

    def params(self, axes: int) -> Params:
        """The parameters, broadcastable to one step of so many axes, [B, C, ...]."""
        o = self.options
        assert o.slope is not None
        threshold = self.threshold.view(1, -1, *[1] * (axes - 2)) if self.threshold.ndim else self.threshold
        return Params(
            neuron=o.neuron,
            decay=torch.sigmoid(self.decay_logit) if o.neuron == "plif" else self.decay,
            synaptic_decay=o.synaptic_decay or 0.0,
            adaptation=o.adaptation or 0.0,
            adaptation_decay=o.adaptation_decay or 0.0,
            threshold=threshold,
            reset=o.reset,
            detach_reset=o.detach_reset,
            refractory=o.refractory,
            surrogate=o.surrogate,
            slope=o.slope,
            pool=self.pool,
        )

    def scan(self, drive: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run all steps.

        Args:
            drive: [T, B, C, ...] fp32, bf16 or fp64.
            state: after an earlier part of the same run (`State.detached` cuts its gradient); None: the state of rest.

        Returns: (spikes in {0, 1} of the shape, type and memory layout of ``drive``, or with ``pool`` their means
        [T, B, C, H // pool, W // pool]; the state after step T).
        """
        if drive.ndim < 3 or drive.shape[0] == 0:
            raise must(
                "the drive of spiking neurons", "[T, B, C, ...] with T > 0", list(drive.shape), "Give more steps."
            )
        if self.pool > 1 and drive.ndim != 5:
            raise must("the drive of pooled neurons", "[T, B, C, H, W]", list(drive.shape), "Leave out the pooling.")
        return self.run(drive, state, self.params(drive.ndim - 1))

    def forward(self, drive: Tensor) -> Tensor:
        """drive: [T, B, C, ...] -> spikes in {0, 1} of the same shape (pooled: see `scan`), from the state of rest."""
        return self.scan(drive)[0]

    def extra_repr(self) -> str:
        return f"{self.options.neuron}, engine={self.options.engine}" + (f", pool={self.pool}" if self.pool > 1 else "")
