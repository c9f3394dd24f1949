"""Figures of episodes: accuracy against shots, where features lie, what is taken for what, and the hardest queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from engram.backbone.contract import AnyFigure, Bars, Confusion, Figure, Pictures, Row, Scatter
from engram.backbone.data.columns import numbered
from engram.backbone.data.sets import Data, Split
from engram.backbone.measures.confusions import MOST_CLASSES, as_picture
from engram.fewshot.episodes.sampling import Drawn, Pools, Shapes, draw
from engram.fewshot.episodes.scoring import Pictures as Shown
from engram.fewshot.episodes.scoring import Source, score_episodes

EPISODES = 100
"""Test episodes that are looked at."""
HARDEST = 8
"""Queries that are shown."""
BINS = 10
_MOST_WAYS = 20  # more are no map any more


def curves(rows: Sequence[Mapping[str, float]], of: str) -> dict[str, AnyFigure]:
    """Loss and validation accuracy against passes of the training."""
    found: dict[str, AnyFigure] = {}
    said = {"train/loss": ("loss", "Loss", "loss (nat)"), f"validation/{of}": ("accuracy", "Accuracy", "accuracy")}
    for name, (key, title, label) in said.items():
        line = [(row["pass"], row[name]) for row in rows if name in row]
        if line:
            title = f"{title} on {'training' if key == 'loss' else 'validation'} episodes"
            found[key] = Figure(title=title, x_label="pass", y_label=label, series={name: line})
    return found


def by_shots(rows: Sequence[Row]) -> dict[str, AnyFigure]:
    """Accuracy against shots with its interval; ``rows`` of the table "episodes by shape"."""
    tested = [row for row in rows if row["part"] == "test" and str(row["shots"]).isdigit()]
    tested.sort(key=lambda row: int(str(row["shots"])))
    if len(tested) < 2:
        return {}
    series, name = [(float(str(row["shots"])), _number(row, "accuracy")) for row in tested], f"{tested[0]['ways']}-way"
    ranges = [
        (_number(row, "accuracy") - _number(row, "ci95"), _number(row, "accuracy") + _number(row, "ci95"))
        for row in tested
    ]
    title = "Accuracy against labelled images of each class, with 95 % intervals over episodes"
    return {
        "shots": Scatter(
            title=title, x_label="shots", y_label="accuracy", series={name: series}, y_ranges={name: ranges}
        )
    }


def histogram(accuracies: Tensor) -> dict[str, AnyFigure]:
    """How many episodes came to which accuracy; accuracies: [E]."""
    places = (accuracies * BINS).long().clamp(0, BINS - 1)
    shares = torch.bincount(places, minlength=BINS) / len(accuracies)
    names = [f"{bin / BINS:g}-{(bin + 1) / BINS:g}" for bin in range(BINS)]
    series = {"test episodes": shares.tolist()}
    title = "Episodes by accuracy"
    return {"episodes": Bars(title=title, x_label="accuracy", y_label="share of episodes", names=names, series=series)}


@dataclass(frozen=True)
class _Wrong:
    """A query that was taken for another class: positions in the split."""

    sureness: float
    query: int
    other: int
    """A support image of the class it was taken for."""


@dataclass
class _Mistakes:
    """Gathers wrong answers."""

    groups: Tensor | None
    counts: Tensor
    hardest: list[_Wrong] = field(default_factory=list)

    def add(self, numbers: list[int], drawn: Drawn, logits: Tensor) -> None:
        sureness, answers = (each.cpu() for each in logits.softmax(-1).max(-1))
        labels = drawn.labels()[1]
        wrong = answers != labels
        if self.groups is not None:
            first = self.groups[drawn.support[:, :, 0]]
            true, taken = (first.gather(1, each)[wrong] for each in (labels, answers))
            size = len(self.counts)
            self.counts += torch.bincount(true * size + taken, minlength=size**2).view(size, size)
        sureness, queries = torch.where(wrong, sureness, -1.0), drawn.queries.flatten(1)
        values, places = sureness.flatten().topk(min(HARDEST, sureness.numel()))
        for value, place in zip(values.tolist(), places.tolist(), strict=True):
            episode, query = divmod(place, queries.shape[1])
            if value >= 0:
                other = int(drawn.support[episode, answers[episode, query], 0])
                self.hardest.append(_Wrong(value, int(queries[episode, query]), other))
        self.hardest = sorted(self.hardest, key=lambda each: -each.sureness)[:HARDEST]


def of_episodes(
    head: nn.Module, source: Source, data: Data, pools: Pools, shapes: Shapes, seed: int, count: int
) -> dict[str, AnyFigure]:
    """What is seen in the first test episodes.

    Args:
        head: the support head, in evaluation mode.
        source: what test episodes are classified from.
        data: whose test split it is.
        pools: of the test split.
        shapes: the episodes' size.
        seed: whose episodes.
        count: test episodes that there are.
    """
    split = data.test
    groups, names = numbered(split.columns["alphabet"]) if "alphabet" in split.columns else (None, ())
    if not 2 <= len(names) <= MOST_CLASSES:
        groups, names = None, ()
    mistakes = _Mistakes(groups, torch.zeros(len(names), len(names), dtype=torch.int64))
    adapting = isinstance(source, Shown)
    score_episodes(
        head, source, pools, shapes, min(count, EPISODES // 10 if adapting else EPISODES), seed, told=mistakes.add
    )
    found: dict[str, AnyFigure] = {} if adapting else _map(source, data, pools, shapes, seed)
    if groups is not None:
        title = "Alphabets of characters that were taken for another"
        found["alphabets"] = Confusion(title=title, classes=names, counts=mistakes.counts.tolist())
    return found | _hardest(mistakes.hardest, split, data.classes)


def _map(table: Tensor, data: Data, pools: Pools, shapes: Shapes, seed: int) -> dict[str, AnyFigure]:
    """The features of the classes of the first episode along their two main axes, and the means of the support."""
    ((shape, _),) = shapes.groups([0], seed).items()
    if shape.ways > _MOST_WAYS or table.shape[1] < 2:
        return {}
    drawn = draw(pools, shape, [0], seed)
    members = [row[row >= 0] for row in pools.members[drawn.classes[0]]]
    points = table[torch.cat(members).to(table.device)].cpu().double()
    means = table[drawn.support[0].flatten().to(table.device)].cpu().double().unflatten(0, (shape.ways, -1)).mean(1)
    centre = points.mean(0)
    axes = torch.linalg.svd(points - centre, full_matrices=False).Vh[:2].T
    flat = [((points - centre) @ axes).split([len(each) for each in members]), (means - centre) @ axes]
    names = [data.classes[int(pools.labels[row])] for row in drawn.classes[0]]
    series = {name: _points(each) for name, each in zip(names, flat[0], strict=True)}
    series["means of the support"] = _points(flat[1])
    title = "Features of the classes of an episode along their two main axes"
    found = Scatter(title=title, x_label="first axis", y_label="second axis", series=series, own_axes=True)
    return {"features": found}


def _hardest(wrong: Sequence[_Wrong], split: Split, classes: Sequence[str]) -> dict[str, AnyFigure]:
    """The queries that heads were surest of and wrong about, each beside a labelled image of what it was taken for."""
    if not wrong or split.frames is not None or split.in_shape[0] not in (1, 3):
        return {}
    positions = torch.tensor([place for each in wrong for place in (each.query, each.other)])
    ((images, labels, _),) = split.batches(positions, len(positions), "cpu")
    called = [classes[label] for label in labels.tolist()]
    captions = [
        text
        for i, each in enumerate(wrong)
        for text in (f"{called[2 * i]} ({each.sureness:.2f})", f"as {called[2 * i + 1]}")
    ]
    title = "Queries that were surest taken for another class, each beside a labelled image of that class"
    return {"hardest": Pictures(title=title, pictures=[as_picture(image) for image in images], captions=captions)}


def _points(rows: Tensor) -> list[tuple[float, float]]:
    return [(x, y) for x, y in rows.tolist()]


def _number(row: Mapping[str, Any], key: str) -> float:
    return float(row[key])
