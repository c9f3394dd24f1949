"""Our engine."""

from __future__ import annotations

from torch import Tensor

from snn.cells.firing import Params, State
from snn.cells.scanning import eager_scan


def scan(drive: Tensor, state: State | None, p: Params) -> tuple[Tensor, State]:
    """drive: [T, B, C, ...] -> (spikes [T, B, C, ...], the state after step T)."""
    return eager_scan(drive, state, p)
