"""Metrics that experiments with few images a class share; no torch here."""

from __future__ import annotations

from engram.backbone.contract import Metric, SplitName


def share(split: SplitName, of: str, *, primary: bool = False, optional: bool = True) -> Metric:
    """A share of labelled images that is better where it is larger."""
    return Metric(
        name=f"{split}/{of}",
        split=split,
        of=of,
        unit="fraction",
        direction="max",
        primary=primary,
        optional=optional,
    )


def ci95(split: SplitName, of: str = "accuracy", *, optional: bool = True) -> Metric:
    """Half the width of the 95 % interval of an accuracy."""
    of = f"{of}/ci95"
    return Metric(name=f"{split}/{of}", split=split, of=of, unit="fraction", direction="min", optional=optional)
