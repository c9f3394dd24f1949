"""What ``feedback.robustness`` reports; no torch here."""

from __future__ import annotations

from typing import Literal, get_args

from engram.backbone.contract import Metric

ScoredSplit = Literal["test", "validation"]
ONE_STEP, SAME_PARAMETERS, SAME_FLOPS = "one_step", "parameter_matched", "flop_matched"
OTHERS = (ONE_STEP, SAME_PARAMETERS, SAME_FLOPS)
"""What a network is compared with: itself when it stops after its first step, and the two controls."""
GAINS = {ONE_STEP: "one_step", SAME_PARAMETERS: "parameters", SAME_FLOPS: "flops"}
"""What a gain over each of them is called behind ``gain/``."""
CLEAN, CORRUPT, ATTACKED = "clean/accuracy", "corrupt/accuracy", "attacked/accuracy"


def gain(other: str) -> str:
    """The name of the gain over another network, behind its split.

    >>> gain(SAME_PARAMETERS)
    'gain/parameters'
    """
    return f"gain/{GAINS[other]}"


def _scores(split: ScoredSplit, network: str = "") -> tuple[Metric, ...]:
    return tuple(
        Metric(
            name=f"{network}/{split}/{of}".lstrip("/"),
            split=split,
            of=of,
            unit="fraction",
            direction="max",
            primary=of == CORRUPT and not network,
            optional=True,
        )
        for of in (CLEAN, CORRUPT, ATTACKED)
    )


def _gains(split: ScoredSplit, other: str) -> tuple[Metric, Metric]:
    of, width = gain(other), f"{gain(other)}/ci95"
    return (
        Metric(name=f"{split}/{of}", split=split, of=of, unit="points", direction="max", optional=True),
        Metric(name=f"{split}/{width}", split=split, of=width, unit="points", direction="min", optional=True),
    )


METRICS = (
    *(metric for split in get_args(ScoredSplit) for metric in _scores(split)),
    *(metric for split in get_args(ScoredSplit) for other in OTHERS for metric in _gains(split, other)),
    *(metric for split in get_args(ScoredSplit) for other in OTHERS for metric in _scores(split, other)),
    Metric(name="flops_per_image", unit="1/image", direction="min"),
    Metric(name="parameters", unit="count", direction="min"),
    *(
        Metric(name=f"{other}/{name}", unit=unit, direction="min", optional=True)
        for other in OTHERS
        for name, unit in (("flops_per_image", "1/image"), ("parameters", "count"))
    ),
    Metric(name="images", unit="count", direction="max"),
)
