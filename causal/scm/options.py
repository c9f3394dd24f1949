"""Options of ``shapes-scm``; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le, Lt

from engram.backbone.contract import KnownData
from engram.backbone.data.known import ENVIRONMENT, FOREGROUND, GROUP


@dataclass(frozen=True, kw_only=True)
class ShapesScmOptions:
    """Which model the pictures come from, and how many there are."""

    graph: Literal["backdoor", "frontdoor"] = "backdoor"
    """backdoor: the context is behind shape and label, and is told in the column context. frontdoor: it is not told;
    the shape has its effect through a mediator, which is in the column mediator."""
    confounding: Annotated[float, Ge(0), Le(1)] = 0.6
    """How often the shape is the one that is common in the context; otherwise it is any. With 0 nothing is
    confounded."""
    background: Annotated[float, Ge(0), Le(1)] = 0.5
    """How often the background is that of the context; otherwise it is any. With 0 no picture tells its context, and
    with 1 all do: then no context is seen with another one's background."""
    images: Annotated[int, Ge(60), Le(1_000_000)] = 40_000
    """Pictures to train on; a quarter as many more to test on."""
    size: Annotated[int, Ge(12), Le(64)] = 16
    """Height and width in pixels."""
    seed: Annotated[int, Ge(0), Lt(2**31)] = 0
    """Which pictures are drawn."""


def known_shapes_scm(path: str | None, options: ShapesScmOptions | None, *, root: Path) -> KnownData:
    """What is known of ``shapes-scm`` before it is drawn."""
    graph = (options or ShapesScmOptions()).graph
    told = ("context", ENVIRONMENT, GROUP) if graph == "backdoor" else ("mediator",)
    return KnownData(columns=dict.fromkeys(("shape", "background", FOREGROUND, *told)))
