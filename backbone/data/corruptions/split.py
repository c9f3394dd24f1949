"""Sets of corrupted pictures: ``corrupted(split, kind, severity, seed=0) -> Split``.

It costs nothing until the pictures are needed, so that one set can be scored under all kinds and severities::

    for kind in KINDS:
        for severity in SEVERITIES:
            scores = score(model, corrupted(data.test, kind, severity), device)
"""

from __future__ import annotations

from torch import Tensor

from engram.backbone.data.changed import ChangedSplit, places_of
from engram.backbone.data.columns import Columns, without_masks
from engram.backbone.data.corruptions.applying import corrupt, require
from engram.backbone.data.corruptions.options import Corruption
from engram.backbone.data.sets import Split
from engram.backbone.errors import must

_PLACE = "place"


def corrupted(split: Split, kind: Corruption, severity: int, seed: int = 0) -> Split:
    """A split with every picture corrupted; labels and columns stay, but masks where pixels move.

    Args:
        split: of still pictures with 1 or 3 channels; what is drawn by lot follows its column ``original_index``.
        kind: one of `engram.backbone.data.corruptions.options.KINDS`.
        severity: 1 to 5.
        seed: in [0, 2**31); the same pictures for the same one.

    Raises:
        UserError: there is no such kind or severity, or the split has no such pictures.
    """
    if split.frames is not None:
        raise must("a data set to corrupt", "of still pictures", "one of recordings", "Choose another dataset.")
    require(kind, severity, split.in_shape[0])

    def change(images: Tensor, known: Columns) -> Tensor:
        places = known[_PLACE]
        assert isinstance(places, Tensor)
        return corrupt(images, places, kind, severity, seed)

    columns = without_masks(split.columns) if kind == "elastic" else split.columns
    return ChangedSplit(split, change, {_PLACE: places_of(split)}, columns)
