"""Flags of ``engram select``; nothing heavy here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engram.backbone.contract import Flags
from engram.backbone.errors import must


@dataclass(frozen=True, kw_only=True)
class SelectFlags(Flags):
    """Choose among the trainings of sweeps by each of three policies, and say what the choice is worth."""

    out: Path = Path("runs")
    """Folder of trials and sweeps."""
    by: tuple[str, ...] = ()
    """Options that are compared and not chosen, beside the objective and the environments held out: dataset,
    backbone."""
    metric: str = "test/accuracy"
    """What the choice is worth: test/accuracy, test/worst_group/accuracy."""
    to: Path | None = None
    """Write the table into this file as well: .csv or .md."""
    json: bool = False
    """Print one JSON object."""

    def problems(self) -> list[str]:
        if self.to is None or self.to.suffix in (".csv", ".md"):
            return []
        return [str(must("--to", "a file that ends in .csv or .md", self.to, "Give it such a name."))]
