"""What all layers of neurons are to the graph that they stand in."""

from __future__ import annotations

from torch import nn


class TimedNeurons(nn.Module):
    """Base of what stands where a ReLU stood: layers that look along time, the steps of a run.

    A subclass is called with ``drive: [T, B, C, ...]`` and returns what leaves it, of the same shape.
    """
