"""A comparison that was stored (``--to FILE.json``), for later ones to be held against."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le
from pydantic import TypeAdapter, ValidationError

from engram.backbone.errors import must

Scores = Mapping[str, Mapping[int, float]]
"""By group and seed."""
_Score = Annotated[float, Ge(-1e150), Le(1e150)]


@dataclass
class Baseline:
    """What a stored comparison says: how its groups were made, and their scores by metric, group and seed."""

    by: list[str]
    scores: dict[str, dict[str, dict[int, _Score | None]]] = field(default_factory=dict)

    def of(self, metric: str) -> Scores:
        """The scores in one metric; those that were no numbers are left out.

        Raises:
            UserError: it was stored without that metric.
        """
        if metric not in self.scores:
            remedy = f"Store it again with: --metric {metric}"
            raise must("--baseline", f"a comparison by {metric}", ", ".join(self.scores) or "none", remedy)
        held = self.scores[metric]
        return {name: {seed: value for seed, value in each.items() if value is not None} for name, each in held.items()}


def read_baseline(path: Path, by: tuple[str, ...]) -> Baseline:
    """The comparison stored in ``path``, which must have been made by the same options.

    Raises:
        UserError: there is none, or it is about other groups.
    """
    remedy = "Write one with: engram compare SWEEP --to FILE.json"
    try:
        found = TypeAdapter(Baseline).validate_json(path.read_bytes())
    except OSError as error:
        raise must("--baseline", "a file that can be read", f"{path} ({error.strerror})", remedy) from None
    except (ValidationError, json.JSONDecodeError, RecursionError):
        raise must("--baseline", "a comparison as compare --to FILE.json writes it", path, remedy) from None
    if tuple(found.by) != by:
        got = f"{path}, by {', '.join(found.by) or 'nothing'}"
        step = f"Give --by {','.join(found.by)}." if found.by else "Store it again."
        raise must("--baseline", f"about groups by {', '.join(by) or 'nothing'}", got, step)
    return found
