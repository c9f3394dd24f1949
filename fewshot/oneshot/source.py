"""The published one-shot runs as a data set."""

from __future__ import annotations

from pathlib import Path

import torch

from engram.backbone.data.options import PictureOptions
from engram.backbone.data.pictures import Labelled, open_pictures
from engram.backbone.data.sets import Source
from engram.fewshot.oneshot.reading import find_runs

RUN = "run"
"""The column with the number of the run that a picture is of."""


def open_runs(
    path: str | None, options: PictureOptions | None, *, root: Path, download: bool, budget_bytes: int
) -> Source:
    """Runs of one-shot classification: in ``train`` a picture of every class of every run, in ``test`` another one.

    Pictures become tensors as those of ``omniglot`` do. Column: ``run``, numbered from 1.

    Raises:
        UserError: see `engram.fewshot.oneshot.reading.find_runs`, or pictures are damaged or differ in size.

    Source: Lake, Salakhutdinov, Tenenbaum 2015, "Human-level concept learning through probabilistic program induction".
    """
    found = find_runs(path)
    classes = tuple(f"{run}/{Path(known).stem}" for run, pairs in found.pairs.items() for _, known in pairs)
    labels = torch.arange(len(classes))
    of = torch.tensor([number for number, pairs in enumerate(found.pairs.values(), start=1) for _ in pairs])
    known = Labelled({"train": labels, "test": labels}, classes, implied={RUN: of.repeat(2)})
    return open_pictures(found.pictures(), known, options or PictureOptions(), budget_bytes)
