"""The data set ``shapes-scm``: pictures whose causes are known, down to every probability."""

from __future__ import annotations

import numpy as np
import torch

from engram.backbone.data.columns import CONTEXT, ENVIRONMENT, FOREGROUND, GROUP, MEDIATOR, Column, identify, indexed
from engram.backbone.data.fingerprint import Fingerprint, of_tensors
from engram.backbone.data.lots import lots
from engram.backbone.data.sets import MemorySplit, Source
from engram.backbone.data.subgroups import subgroups
from engram.backbone.errors import must
from engram.causal.scm.drawing import draw
from engram.causal.scm.graphs import BACKGROUND, LABEL, SHAPE, SHAPES, model_of
from engram.causal.scm.options import ShapesScmOptions


def open_shapes_scm(
    path: str | None, options: ShapesScmOptions | None, *, root: object, download: bool, budget_bytes: int
) -> Source:
    """Pictures ``[N, 1, SIZE, SIZE]`` drawn from a structural causal model (`engram.causal.scm.graphs`).

    X is the shape in the picture, Y the label, a name that somebody gave it. The picture shows shape and background;
    place, size, turn and brightness are drawn by lot. All parts are observed: nobody interferes.

    Columns: ``shape`` (X), ``background``, ``foreground``; with the graph ``backdoor`` also ``context``, which is the
    ``environment``, and ``group``, label and context together; with ``frontdoor`` ``mediator``.

    Raises:
        UserError: the pictures need more memory than allowed.
    """
    o = options or ShapesScmOptions()
    counts = {"train": o.images, "test": o.images // 4}
    if (size := 2 * sum(counts.values()) * o.size**2) > budget_bytes:  # masks take as much as pictures
        got, remedy = f"{size / 2**30:.1f} GiB", "Ask for fewer --dataset.images."
        raise must("shapes-scm", f"at most {budget_bytes / 2**30:.1f} GiB", got, remedy)
    keys = lots(np.array([o.seed], np.uint64), len(counts)).T  # [parts, 1]
    parts = {name: _part(count, key, o) for (name, count), key in zip(counts.items(), keys, strict=True)}
    digest = Fingerprint()
    digest.words((of_tensors(SHAPES, {name: (part.images, part.labels) for name, part in parts.items()}),))
    for part in parts.values():
        identify(digest, part.columns)
    return Source({**parts}, SHAPES, digest.hexdigest())


def _part(count: int, key: np.ndarray, options: ShapesScmOptions) -> MemorySplit:
    model = model_of(options)
    streams = lots(lots(key, count)[0], 2)
    values = model.sample(streams[:, 0])
    drawn = draw(values[SHAPE], values[BACKGROUND], streams[:, 1], options.size)

    def names(variable: str) -> tuple[str, ...]:
        known = model.variables[variable].values
        return tuple(known[value] for value in values[variable])

    columns: dict[str, Column] = {name: names(name) for name in (SHAPE, BACKGROUND)}
    if options.graph == "frontdoor":
        columns[MEDIATOR] = names(MEDIATOR)
    else:
        contexts, labels = names(CONTEXT), torch.from_numpy(values[LABEL])
        groups = subgroups(tuple(model.variables[LABEL].values), labels, contexts)
        columns |= {CONTEXT: contexts, ENVIRONMENT: contexts, GROUP: groups}
    columns[FOREGROUND] = drawn.foreground
    return MemorySplit(drawn.images, torch.from_numpy(values[LABEL]), {**indexed(count), **columns})
