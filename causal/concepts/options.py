"""Options of the head, the objective and the data; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from engram.backbone.contract import KnownData
from engram.backbone.data.known import CONCEPTS

Given = Literal["probabilities", "logits"]
Mode = Literal["joint", "sequential", "independent"]


@dataclass(frozen=True, kw_only=True)
class BottleneckOptions:
    """Concepts in front of the classes."""

    width: Annotated[int, Ge(1), Le(10_000)] = 6
    """How many concepts there are: as many as the data know of."""
    given: Given = "probabilities"
    """What the classes are made of: probabilities of the concepts, or their logits."""
    units: Annotated[int, Ge(0)] = 0
    """Units of a layer between concepts and classes; 0: none, the classes are linear in what they are made of."""


@dataclass(frozen=True, kw_only=True)
class ConceptsOptions:
    """Both concepts and classes."""

    mode: Mode = "joint"
    """joint: the loss of the classes trains the concepts as well. sequential: it goes no further back than to the
    concepts. independent: the classes are trained on the true concepts."""
    weight: Annotated[float, Gt(0)] = 1.0
    """Weight of the cross-entropy of the concepts, summed over them, lambda."""


@dataclass(frozen=True, kw_only=True)
class ConceptShapesOptions:
    """Shapes whose looks are concepts, of which four make the class."""

    known: Annotated[int, Ge(1), Le(6)] = 6
    """How many concepts the column ``concepts`` has: the first of round, large, hollow, bright, left, high. The first
    four tell the class; with fewer they do not."""
    noise: Annotated[float, Ge(0), Le(2)] = 0.25
    """Standard deviation of the noise on every pixel, where white is 1."""
    samples: Annotated[int, Ge(64), Le(1_000_000)] = 2000
    """Images to train on; a quarter as many are there to test on."""
    seed: Annotated[int, Ge(0), Lt(2**31)] = 0
    """Seed of the images, apart from the trial's."""


def known_concept_shapes(path: str | None, options: ConceptShapesOptions | None, *, root: Path) -> KnownData:
    """What is known of ``concept-shapes`` before it is drawn."""
    return KnownData(columns={CONCEPTS: None})
