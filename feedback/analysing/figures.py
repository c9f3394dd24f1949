"""What was counted, as figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from engram.backbone.contract import AnyFigure, Figure, Grid, Pictures
from engram.backbone.data.sets import Split
from engram.feedback.analysing import tables
from engram.feedback.analysing.ablation import Variant
from engram.feedback.analysing.alignment import similarity
from engram.feedback.analysing.decoders import SEEN, Decoders, Place
from engram.feedback.analysing.decoding import behind
from engram.feedback.analysing.looking import Inside
from engram.feedback.analysing.maps import furthest, path_sheet, stage_sheet, strongest
from engram.feedback.analysing.measuring import CLEAN, Measured
from engram.feedback.analysing.tables import CORRUPTED, EVERY, names_of

SHOWN = 4
"""Test pictures whose maps are shown."""


def accuracy(measured: Measured) -> dict[str, AnyFigure]:
    """Accuracy after each step, on clean and on corrupted pictures."""
    points, right = measured.inside.points, measured.right.double().mean(-1)
    series = {
        f"{condition}, {network}": list(zip(map(float, points), shares.tolist(), strict=True))
        for condition, part in ((CLEAN, right[:, 0]), (CORRUPTED, right[:, 1:].mean(1)))
        for network, shares in zip(names_of(len(right)), part, strict=True)
    }
    return {"accuracy_vs_steps": _lines("Accuracy after each step", "test accuracy", series)}


def ablation(measured: Measured, losses: tables.Losses) -> dict[str, AnyFigure]:
    """Connections by steps: what is lost where one is switched off or exchanged, on clean and corrupted pictures."""
    steps = sorted({each.step for each in measured.variants if each.step is not None})
    columns = {**{str(step): (step, False) for step in steps}, EVERY: (None, False), "exchanged": (None, True)}
    names = list(dict.fromkeys(each.connection for each in measured.variants))

    def points(name: str, how: tuple[int | None, bool], condition: str) -> float:
        found = losses.get((Variant(name, *how), condition))
        return math.nan if found is None else found.points  # it does not act in that step

    return {
        f"ablation_{condition}": Grid(
            title=f"Points of accuracy lost without connections, {condition} pictures",
            x_label="switched off in step; exchanged in all",
            y_label="connection",
            columns=list(columns),
            rows=[_short(name) for name in names],
            values=[[points(name, how, condition) for how in columns.values()] for name in names],
        )
        for condition in ((CLEAN, CORRUPTED) if names else ())
    }


def alignment(measured: Measured) -> dict[str, AnyFigure]:
    """Similarity to the same pictures clean, at the last stage, and at every stage."""
    inside, names = measured.inside, names_of(len(measured.networks))
    stage = inside.stages[-1]
    series = {
        f"{condition}, {network}": _known(
            (step, similarity(measured.alike[n, c, -1, p])["cka"]) for p, step in enumerate(inside.points)
        )
        for c, condition in enumerate(measured.conditions[1:])
        for n, network in enumerate(names)
    }
    together = measured.alike.sum(1)
    values = [
        [_or_nan(similarity(together[0, s, p])["cka"]) for p in range(len(inside.points))]
        for s in range(len(inside.stages))
    ]
    return {
        "alignment": _lines(f"Similarity to the same pictures clean: {stage}", "linear CKA", series),
        "alignment_stages": Grid(
            title="Similarity to the same pictures clean, all corruptions (linear CKA)",
            x_label="step",
            y_label="stage",
            columns=[str(step) for step in inside.points],
            rows=list(inside.stages),
            values=values,
        ),
    }


def convergence(measured: Measured) -> dict[str, AnyFigure]:
    """The relative change of every stage in every step, on clean and on corrupted pictures."""
    if measured.inside.steps < 2:
        return {}
    images = measured.right.shape[-1]
    found: dict[str, AnyFigure] = {}
    for condition, change in ((CLEAN, measured.change[0, 0]), (CORRUPTED, measured.change[0, 1:].mean(0))):
        series = {
            stage: [(float(step), value / images) for step, value in enumerate(values.tolist(), start=2)]
            for stage, values in zip(measured.inside.stages, change, strict=True)
            if stage in _drawn(measured.inside)
        }
        title = f"Relative change in each step, {condition} pictures"
        found[f"convergence_{condition}"] = _lines(title, "relative change", series)
    return found


def decoding(decoders: Decoders) -> dict[str, AnyFigure]:
    """R squared of what is hidden, by step, from every stage; and how much of it is there without feedback."""
    points, found = decoders.inside.points, dict[str, AnyFigure]()
    known = tables.r_squared(decoders, Place(0, SEEN, 0))
    lines = {} if known is None else {"what is seen, without a network": known}
    stages = _drawn(decoders.inside)
    series = {
        stage: _known((step, tables.r_squared(decoders, Place(0, stage, p))) for p, step in enumerate(points))
        for stage in stages
    }
    title = "What stages tell of the hidden part of a picture"
    found["decoding"] = _lines(title, "R squared", series, lines)
    if len(decoders.networks) > 1:
        found["decoding_gain"] = Grid(
            title="What feedback adds to that (R squared)",
            x_label="step",
            y_label="stage",
            columns=[str(step) for step in points],
            rows=stages,
            values=[[_gained(decoders, stage, p) for p in range(len(points))] for stage in stages],
        )
    return found


def _drawn(inside: Inside) -> list[str]:
    """The stages without the features, which may be the last one's own; these where there is no stage."""
    return list(inside.stages[:-1] or inside.stages)


def _gained(decoders: Decoders, stage: str, point: int) -> float:
    ours, theirs = (tables.r_squared(decoders, Place(n, stage, point)) for n in (0, 1))
    return math.nan if ours is None or theirs is None else ours - theirs


@torch.no_grad()
def maps(measured: Measured, test: Split, classes: Sequence[str], labels: Tensor) -> dict[str, AnyFigure]:
    """Maps of a few pictures over steps, clean and with the middle hidden: of stages, and of connections."""
    inside = measured.inside
    if test.in_shape[0] not in (1, 3) or len(inside.stages) < 2:
        return {}
    ((images, _, _),) = test.batches(torch.arange(min(SHOWN, len(test))), SHOWN, "cpu")
    sheets: dict[str, list[Tensor]] = {"stage_maps": [], "path_maps": []}
    captions: list[str] = []
    acting = sorted({step for steps in inside.connections.values() for step in steps})
    neutral = 0.0 if inside.network is None else inside.network.neutral
    for image, label in zip(images, labels.tolist(), strict=False):
        pair = {CLEAN: image, "hidden middle": behind(image[None])[0]}
        looked = {name: inside.look(inside.normalised(each[None])) for name, each in pair.items()}
        strong, far = strongest([*looked.values()]), furthest([*looked.values()], neutral)
        for name, each in looked.items():
            sheets["stage_maps"].append(stage_sheet(each, pair[name], inside.points, strong))
            if acting:
                sheets["path_maps"].append(path_sheet(each, pair[name], neutral, acting, far))
            answers = each.logits[[step - 1 for step in inside.points], 0].argmax(-1).tolist()
            captions.append(f"{classes[label]}, {name}: {_list(classes[int(answer)] for answer in answers)}")
    titles = {
        "stage_maps": f"Strength of every stage, a row each, in steps {_list(inside.points)}",
        "path_maps": f"What connections carry, a row each ({_list(map(_short, inside.connections))}), in steps"
        f" {_list(acting)}: red raises, blue lowers",
    }
    return {
        name: Pictures(title=titles[name], pictures=found, captions=captions) for name, found in sheets.items() if found
    }


def _short(connection: str) -> str:
    """What a connection is called where there is little room."""
    return connection.replace("layer", "")


def _list(things: Iterable[object]) -> str:
    return ", ".join(map(str, things))


def _known(pairs: Iterable[tuple[int, float | None]]) -> list[tuple[float, float]]:
    return [(float(x), y) for x, y in pairs if y is not None]


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _lines(
    title: str,
    y_label: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    lines: Mapping[str, float] | None = None,
) -> Figure:
    return Figure(title=title, x_label="step", y_label=y_label, series=series, lines=lines or {})
