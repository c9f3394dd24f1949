"""What there is to see of explained answers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from engram.backbone.contract import AnyFigure, Bars, Figure, Pictures, Result, Row, Scalar
from engram.backbone.data.columns import FOREGROUND
from engram.backbone.data.sets import Split
from engram.backbone.measures import tiles
from engram.causal.explaining import tcav
from engram.causal.explaining.asking import Asked
from engram.causal.explaining.configs import RANDOM, ExplainConfig
from engram.causal.explaining.explained import LOTS, OTHERS, Explained
from engram.causal.explaining.features import chosen, seen_by
from engram.causal.explaining.trusting import FRACTIONS

SHOWN, CHANNELS, EXCITING = 12, 8, 3
"""Pictures with overlays, channels whose features are shown, and pictures for each of these."""


def report(
    found: Explained,
    config: ExplainConfig,
    asked: Asked,
    x: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    split: Split,
    cautions: Sequence[Row],
) -> Result:
    """Metrics, tables and figures.

    Args:
        x: [N, C, H, W], the pictures, normalised.
        labels: [N] int64, the network's outputs that are right, on the CPU.
        classes: names of its outputs.
        split: the pictures, with their columns.
    """
    metrics = {
        f"{method}/{kind}": float(values.nanmean())
        for method, kinds in found.measures.items()
        for kind, values in kinds.items()
        if not values.isnan().all()
    }
    metrics |= {"test/accuracy": float((found.answers == labels).double().mean()), "images": float(len(labels))}
    named = [_called(classes, found.answers[k], labels[k]) for k in range(len(labels))]
    tables: dict[str, Sequence[Row]] = {"explanations": _explanations(found, split)}
    figures: dict[str, AnyFigure] = {**_curves(found), **_overlays(found, asked, x, named)}
    figures |= _features(found, asked, x, named)
    if found.values:
        tables["concepts"] = rows = _concepts(found, config, classes)
        figures["concepts"] = _bars(rows)
    if cautions:
        tables["cautions"] = cautions
    return Result(metrics=metrics, tables=tables, figures=figures)


def _called(classes: Sequence[str], answer: Tensor, label: Tensor) -> str:
    said, right = classes[int(answer)], classes[int(label)]
    return right if said == right else f"{right}, taken for {said}"


def _explanations(found: Explained, split: Split) -> list[Row]:
    """A row a method: means over pictures, and half of their 95 % interval by Student's t for many."""
    rows: list[Row] = []
    masks = split.columns.get(FOREGROUND)
    for method, kinds in found.measures.items():
        row: dict[str, Scalar] = {"explanation": method}
        for kind, values in kinds.items():
            known = values[~values.isnan()]
            row[kind] = float(known.mean()) if len(known) else math.nan
            row[f"{kind}/ci95"] = 1.96 * float(known.std()) / math.sqrt(len(known)) if len(known) > 1 else math.nan
        if isinstance(masks, Tensor):
            row["foreground"] = float(masks.double().mean())
        rows.append(row)
    return rows


def _curves(found: Explained) -> dict[str, Figure]:
    at = [k / FRACTIONS for k in range(FRACTIONS + 1)]
    return {
        kind: Figure(
            title=f"Probability of the answer while pixels {'come' if kind == 'insertion' else 'go'}",
            x_label="share of pixels, most important first",
            y_label="probability",
            series={
                method: list(zip(at, curves[kind].mean(0).tolist(), strict=True))
                for method, curves in found.curves.items()
            },
        )
        for kind in ("insertion", "deletion")
    }


def _overlays(found: Explained, asked: Asked, x: Tensor, named: Sequence[str]) -> dict[str, Pictures]:
    """The first pictures, each beside what every method says of it."""
    methods = [method for method in found.maps if method != RANDOM]
    sheets = []
    for k in range(min(SHOWN, len(x))):
        picture = _picture(asked, x[k])
        maps = [found.maps[method][k] for method in methods]
        overlays = [tiles.overlaid(picture, each / each.abs().max().clamp(min=1e-12)) for each in maps]
        sheets.append(tiles.sheet([[tiles.shown(picture), *overlays]], 1 + len(methods)))
    title = f"Each picture, and what speaks for the answer (red) and against it (blue): {', '.join(methods)}"
    return {"overlays": Pictures(title=title, pictures=sheets, captions=named[: len(sheets)])}


def _features(found: Explained, asked: Asked, x: Tensor, named: Sequence[str]) -> dict[str, Pictures]:
    """For channels of the stage the pictures that excite them most, and below each what in it does."""
    sheets, captions = [], []
    for channel, places in chosen(found.excited, CHANNELS, EXCITING):
        views = seen_by(asked, x[places], channel)
        above = [tiles.shown(_picture(asked, x[place])) for place in places]
        below = [tiles.shown(_stretched(view)) for view in views]
        sheets.append(tiles.sheet([above, below], len(places)))
        captions.append(f"channel {channel}: {'; '.join(named[place] for place in places)}")
    if not sheets:
        return {}
    title = f"What channels of stage {asked.stage} see: pictures that excite them most, and what in these does"
    return {"features": Pictures(title=title, pictures=sheets, captions=captions)}


def _picture(asked: Asked, x: Tensor) -> Tensor:
    """x: [C, H, W] normalised -> [1 or 3, H, W] between 0 and 1; of other numbers of channels their mean."""
    n = asked.model.normalise
    picture = (x * n.std.view(-1, 1, 1) + n.mean.view(-1, 1, 1)).clamp(0, 1).cpu()
    return picture if len(picture) in (1, 3) else picture.mean(0, keepdim=True)


def _stretched(view: Tensor) -> Tensor:
    """view: [C, H, W] of either sign -> [1 or 3, H, W] between 0 and 1, of which 0 is in the middle."""
    view = view.cpu() if len(view) in (1, 3) else view.mean(0, keepdim=True).cpu()
    return 0.5 + 0.5 * view / view.abs().max().clamp(min=1e-12)


def _concepts(found: Explained, config: ExplainConfig, classes: Sequence[str]) -> list[Row]:
    shown = {name: each for name, each in found.values.items() if name not in (OTHERS, LOTS)}
    others, lots = found.values[OTHERS], found.values[LOTS]
    where = {"runs": config.runs, "seed": config.seed}
    return tcav.rows(shown, others, lots, found.gradients, found.answers, classes, **where)


def _bars(rows: Sequence[Row]) -> Bars:
    return Bars(
        title="Share of pictures whose answer a concept speaks for (TCAV), and concepts by lot",
        x_label="answer and concept",
        y_label="score",
        names=[f"{row['class']}: {row['concept']}" for row in rows],
        series={kind: [float(row[kind]) for row in rows] for kind in ("score", "random")},  # type: ignore[arg-type]
    )
