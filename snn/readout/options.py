"""Options of the adapter ``snn.readout``; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Code = Literal["rate", "latency", "membrane"]


@dataclass(frozen=True, kw_only=True)
class ReadoutOptions:
    """What of the last neurons of a spiking network its features are made of."""

    code: Code = "membrane"
    """rate: how many of the steps have a spike; latency: how early the first spike comes, 1 at the first step and 0
    where none comes; membrane: the mean drive, which neurons without a threshold would hold."""
