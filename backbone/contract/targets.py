"""Figures that somebody can hold us to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engram.backbone.contract.values import Scalar


@dataclass(frozen=True, kw_only=True)
class Present:
    """What the maintainers of the code behind a published figure say today that the same command gives."""

    value: float
    source: str
    date: str
    """Since when they say so: ``2024``, ``2024-05``."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A figure somebody can hold us to: ``engram reproduce NAME`` runs it and prints target, ours, interval, verdict.

    ``value`` is the published figure, of ``date``; ``present`` is there where its maintainers report another one by
    now, and is then the one to be judged by. The verdict is "reproduced" when the mean over ``seeds`` is not worse than
    that by more than ``tolerance``, and where ``exact`` is set not better either: for what other methods are measured
    against, since a baseline that is too good makes a gain look small, and for a method's known failure. Otherwise it
    is "missed, worse" or "missed, better". It is settled unless the interval of the mean is wider than the tolerance
    and holds both. ``note`` says what was found out about a figure that is missed. ``minutes`` are for all seeds
    together; where ``needs_gpu`` is set on a GPU, and nothing runs without one.
    """

    name: str
    experiment: str
    options: Mapping[str, Scalar]
    metric: str
    value: float
    tolerance: float
    seeds: tuple[int, ...]
    protocol: str
    source: str
    minutes: float
    date: str = ""
    present: Present | None = None
    needs_data: bool = True
    needs_gpu: bool = False
    exact: bool = False
    note: str = ""

    @property
    def judged_by(self) -> float:
        """The figure that ours is compared with."""
        return self.value if self.present is None else self.present.value
