"""What is minimised, as options; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from engram.backbone.contract import OptionsOf, Registered, Scalar


@dataclass(frozen=True, kw_only=True)
class ObjectiveOptions:
    """What is minimised, in every experiment that trains."""

    objective: Annotated[str, Registered("objectives")] = "cross-entropy"
    """What is minimised: see ``engram list objectives``."""
    objective_options: Annotated[Mapping[str, Scalar], OptionsOf("objective")] = field(default_factory=dict)
    """Options of the objective."""
