"""What all layers of neurons are to the graph that they stand in."""

from __future__ import annotations

from torch import Tensor, nn

from engram.snn.neurons.firing import State


class TimedNeurons(nn.Module):
    """Base of what stands where a ReLU stood: layers that look along time, the steps of a run.

    A subclass is called with ``drive: [T, B, C, ...]`` and returns what leaves it, of the same shape.
    """

    def scan(self, drive: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run some steps.

        Args:
            drive: [T, B, C, ...].
            state: after the steps before; None: the neurons begin. It is not written into.

        Returns: (spikes in {0, 1} of the same shape, the state after step T).
        """
        raise NotImplementedError

    def send(self, spikes: Tensor) -> Tensor:
        """spikes: [T, B, C, ...] in {0, 1} -> what the next layers get."""
        return spikes
