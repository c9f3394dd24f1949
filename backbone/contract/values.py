"""Words that all contracts share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Lt

Scalar = str | int | float | bool | None
Seed = Annotated[int, Ge(0), Lt(2**31)]
Row = Mapping[str, Scalar]


@dataclass(frozen=True)
class Named:
    """A registered thing as something was made with it: its name, the version it had, and all of its options.

    Options are by field name and as JSON has them. None is left out, so that a later default cannot make another thing
    of it (`engram.backbone.options.in_full`). ``content`` is what the file says that a network came as
    (`engram.backbone.contract.Entry`), and empty elsewhere.
    """

    name: str
    version: int
    options: Mapping[str, Any]
    content: str = ""
