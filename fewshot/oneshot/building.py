"""Runs by Lake's rule from any drawings whose writers are known: a pure function of the data, a seed and a number."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engram.backbone.data.columns import numbered
from engram.backbone.data.sets import Split
from engram.backbone.errors import must
from engram.backbone.seeding import generator
from engram.fewshot.episodes.sampling import Drawn
from engram.fewshot.oneshot.source import RUN

PUBLISHED, RULE = "Lake et al. 2015", "engram-lake-rule/1"
WAYS = 20
COLUMNS = ("alphabet", "character", "writer")


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs, each an episode with one picture of every class and one to classify.

    Attributes:
        protocol: by which rule they were made.
        drawn: which pictures they show.
        names: of each run's alphabet; where that is not known, of the run.
    """

    protocol: str
    drawn: Drawn
    names: tuple[str, ...]


def published(train: Split) -> Runs:
    """Those of a data set ``one-shot-runs:PATH``, whose test images come behind its N training images.

    train: its training part; classes of both parts come in the same order.
    """
    names = numbered(train.columns[RUN])[1]
    rows = torch.arange(len(train)).view(len(names), -1)
    drawn = Drawn(rows, rows[..., None], rows[..., None] + len(train))
    return Runs(PUBLISHED, drawn, tuple(f"run{int(name):02d}" for name in names))


def built(split: Split, count: int, seed: int) -> Runs:
    """Runs of twenty characters of one alphabet, drawn by one writer and to be classified as drawn by another.

    Alphabets take turns, in an order of the seed's; the first runs are the same however many are built. Used are
    alphabets of twenty characters or more that two writers or more drew each of; of characters in several turns the
    upright one.

    Args:
        split: drawings with columns ``alphabet``, ``character`` and ``writer``.
        count: how many runs.
        seed: whose.

    Raises:
        UserError: a column is missing, or no alphabet is large enough.
    """
    if lost := [name for name in COLUMNS if name not in split.columns]:
        rule, step = f"with the columns {', '.join(COLUMNS)}", "Use --dataset omniglot, or one-shot-runs:PATH."
        raise must("a data set to build one-shot runs from", rule, f"none called {', '.join(lost)}", step)
    tables = _tables(split)
    if not tables:
        rule = f"of an alphabet with {WAYS} characters that two writers drew all of"
        step = "Use --dataset omniglot, with another --split."
        raise must("drawings to build one-shot runs from", rule, "none", step)
    names = list(tables)
    order = torch.randperm(len(names), generator=generator(seed, "order of alphabets")).tolist()
    chosen = [names[order[number % len(names)]] for number in range(count)]
    rows = [_run(tables[name], seed, number) for number, name in enumerate(chosen)]
    known, asked = (torch.stack([pair[side] for pair in rows])[..., None] for side in (0, 1))
    return Runs(RULE, Drawn(split.labels[known[..., 0]], known, asked), tuple(chosen))


def _run(table: Tensor, seed: int, number: int) -> tuple[Tensor, Tensor]:
    """table: [characters, writers] positions -> those of the pictures known and to classify, [WAYS] each."""
    random = generator(seed, "one-shot run", number)
    characters = torch.randperm(table.shape[0], generator=random)[:WAYS]
    one, other = torch.randperm(table.shape[1], generator=random)[:2].tolist()
    return table[characters, one], table[characters, other]


def _tables(split: Split) -> dict[str, Tensor]:
    """Alphabet -> positions [characters, writers], of the writers that drew all of its characters."""
    (alphabets, names), (characters, _), (writers, _) = (numbered(split.columns[name]) for name in COLUMNS)
    found: dict[str, Tensor] = {}
    for number, name in enumerate(names):
        mine = (alphabets == number).nonzero().squeeze(1)
        each = _upright(split.labels[mine], characters[mine])
        table = _grid(mine[each], characters[mine[each]], writers[mine[each]])
        if table.shape[0] >= WAYS and table.shape[1] >= 2:
            found[name] = table
    return found


def _upright(labels: Tensor, characters: Tensor) -> Tensor:
    """Which drawings are of the first class of their character: quarter turns are classes of their own behind it."""
    first = torch.full((int(characters.max()) + 1,), int(labels.max()) + 1)
    first.scatter_reduce_(0, characters, labels, "amin")
    return labels == first[characters]


def _grid(places: Tensor, characters: Tensor, writers: Tensor) -> Tensor:
    """places: [n] of drawings -> [characters, writers], one drawing of each."""
    rows, columns = (each.unique(return_inverse=True)[1] for each in (characters, writers))
    table = torch.full((int(rows.max()) + 1, int(columns.max()) + 1), -1)
    order = places.argsort(descending=True)  # of several drawings the first
    for row, column, place in zip(rows[order].tolist(), columns[order].tolist(), places[order].tolist(), strict=True):
        table[row, column] = place
    return table[:, (table >= 0).all(0)]
