"""What there is to see of a network whose inside was looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from engram.backbone.contract import AnyFigure, Result, Row
from engram.backbone.data.sets import Split
from engram.feedback.analysing import figures, tables
from engram.feedback.analysing.ablation import ALL, Variant
from engram.feedback.analysing.alignment import similarity
from engram.feedback.analysing.decoders import Decoders
from engram.feedback.analysing.measuring import CLEAN, Measured


def report(
    measured: Measured,
    decoders: Decoders,
    test: Mapping[str, Split],
    classes: Sequence[str],
    labels: Tensor,
    cautions: Sequence[Row],
) -> Result:
    """Metrics, tables and figures; ``test`` are the pictures by condition, ``labels`` their outputs, [N]."""
    losses = tables.losses(measured)
    found = {
        "accuracy_vs_steps": tables.accuracies(measured),
        "ablation": tables.ablation(measured, losses),
        "alignment": tables.alignment(measured),
        "decoding": tables.decoding(decoders),
        "convergence": tables.convergence(measured),
        "cautions": cautions,
    }
    drawn: dict[str, AnyFigure] = {
        **figures.accuracy(measured),
        **figures.ablation(measured, losses),
        **figures.alignment(measured),
        **figures.decoding(decoders),
        **figures.convergence(measured),
        **figures.maps(measured, test[CLEAN], classes, labels),
    }
    return Result(
        metrics={name: value for name, value in metrics(measured, decoders, losses).items() if value is not None},
        tables={name: rows for name, rows in found.items() if rows},
        figures=drawn,
    )


def metrics(measured: Measured, decoders: Decoders, losses: tables.Losses) -> dict[str, float | None]:
    """What `engram.feedback.analysing.configs.METRICS` declares; None where the network has no such thing."""
    right = measured.right[:, :, -1].double()
    together = measured.alike.sum(1)[:, -1, -1]
    found: dict[str, float | None] = {
        "test/clean/accuracy": float(right[0, 0].mean()),
        "test/corrupt/accuracy": float(right[0, 1:].mean()),
        "aligned": similarity(together[0])["cka"],
        "decoded": tables.told(decoders),
        "images": float(right.shape[-1]),
    }
    if measured.inside.steps > 1:
        found["residual"] = float(measured.change[0, 0, -1, -1]) / right.shape[-1]
    if len(measured.networks) == 1:
        return found
    everything = ALL if len(measured.inside.connections) > 1 else next(iter(measured.inside.connections))
    for how, exchanged in (("without", False), ("exchanged", True)):
        for pictures, condition in (("clean", CLEAN), ("corrupt", tables.CORRUPTED)):
            name, each = f"test/{pictures}_drop_{how}", losses[Variant(everything, None, exchanged), condition]
            found |= {name: each.points, f"{name}/ci95": (each.high - each.low) / 2}
    without = similarity(together[1])["cka"]
    aligned = found["aligned"]
    found["aligned/gain"] = None if aligned is None or without is None else aligned - without
    if (filled := tables.filled_in(decoders)) is not None:
        found["decoded/gain"], found["decoded/gain/ci95"] = filled
    return found
