"""What a comparison is asked for; the flags of ``engram compare`` are these. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How to compare trials."""

    by: str | None = None
    """Compare the values of this option, or of several with commas; by default every axis of the sweep."""
    metric: str | None = None
    """By default the experiment's primary metric."""
    only: tuple[str, ...] = ()
    """Only trials with these values of options: backbone=mlp,lenet5 epochs=8."""
    tasks: str | None = None
    """The option whose values are tasks, such as dataset: ranks over them, and how probable it is to be better."""
    fail_if: str | None = None
    """Exit with 3 when this holds: "test/accuracy < 0.9", "drop test/accuracy of mlp > 0.01", "worse test/accuracy"."""
    baseline: Path | None = None
    """What drop, rise and worse compare with: a file that --to FILE.json wrote."""


ALL = Wanted()
"""Whatever was varied, by the experiment's own metric."""
