"""Which corruptions there are, and the options of the data set ``corrupted:NAME``; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Lt

from engram.backbone.registry import Registry

Published = Literal[
    "gaussian-noise",
    "shot-noise",
    "impulse-noise",
    "gaussian-blur",
    "motion-blur",
    "brightness",
    "contrast",
    "elastic",
    "pixelate",
    "jpeg",
]
Occlusion = Literal["bars", "blobs", "cutout"]
Corruption = Published | Occlusion
Severity = Literal[1, 2, 3, 4, 5]

PUBLISHED: tuple[Published, ...] = get_args(Published)
"""With the constants of CIFAR-10-C, Hendrycks and Dietterich 2019 (arXiv 1903.12261)."""
OCCLUSIONS: tuple[Occlusion, ...] = get_args(Occlusion)
KINDS: tuple[Corruption, ...] = (*PUBLISHED, *OCCLUSIONS)
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
PROTOCOLS: dict[Corruption, str] = {
    **dict.fromkeys(PUBLISHED, "CIFAR-10-C constants"),
    **dict.fromkeys(OCCLUSIONS, "engram-occlusion/1"),
}
"""By whose rule a kind is made."""


@dataclass(frozen=True, kw_only=True)
class CorruptedOptions:
    """How pictures are corrupted: those of every part of the set."""

    kind: Literal[Published, Occlusion] = "gaussian-noise"
    """What is done to every picture. bars, blobs and cutout hide a share of it; the others are those of CIFAR-10-C."""
    severity: Severity = 3
    """How much of it, from 1 to 5."""
    corruption_seed: Annotated[int, Ge(0), Lt(2**31)] = 0
    """Seed of what is drawn by lot, apart from the trial's: a picture always looks the same for one seed."""


def of_inner(name: str, options: object) -> Mapping[str, Any]:
    """From the options of a data set that wraps another one, those of the other one, which is called ``name``."""
    cls = Registry.discover().options("datasets", name)
    return {} if cls is None or options is None else {each.name: getattr(options, each.name) for each in fields(cls)}
