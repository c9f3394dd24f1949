"""Images that stand in two splits, pixel for pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engram.backbone.data.keys import refused
from engram.backbone.data.options import Duplicates
from engram.backbone.data.sets import Split


@dataclass(frozen=True)
class Keyed:
    """A split, and the keys of its images ``[N] int64``; None: they are not known."""

    split: Split
    keys: Tensor | None

    def select(self, indices: Tensor) -> Keyed:
        return Keyed(self.split.select(indices), None if self.keys is None else self.keys.index_select(0, indices))


@dataclass(frozen=True)
class Repeated:
    """What was found of one split's images among those to train on."""

    split: str
    size: int
    """Images of the split."""
    count: int
    """Those of them that are trained on, too."""
    dropped: int
    """Images that are not trained on, as they stand in the split."""

    @property
    def facts(self) -> dict[str, int]:
        dropped = {f"train_images_in_{self.split}_dropped": self.dropped} if self.dropped else {}
        return {f"{self.split}_images_in_train": self.count, **dropped}

    @property
    def caution(self) -> str | None:
        if self.dropped:
            return f"{self.dropped} training images are left out: they stand in the {self.split} set, pixel for pixel."
        if not self.count:
            return None
        return (
            f"{self.count} of {self.size} {self.split} images stand among the training images too, pixel for pixel: "
            f"their part of the {self.split} score says nothing. --dataset.duplicates drop does not train on them."
        )


def apart(train: Keyed, other: Keyed, name: str, choice: Duplicates) -> tuple[Keyed, tuple[Repeated, ...]]:
    """The training images as they are kept beside another split, and what was found of images that stand in both.

    Where keys are not known nothing is looked for, and all images are kept.

    Raises:
        UserError: images stand in both, and that is to be refused.
    """
    if train.keys is None or other.keys is None:
        return train, ()
    size, count = len(other.keys), int(torch.isin(other.keys, train.keys).sum())
    if choice == "refuse" and count:
        raise refused(name, count, size)
    if choice == "keep":
        return train, (Repeated(name, size, count, 0),)
    kept = torch.isin(train.keys, other.keys, invert=True).nonzero()[:, 0]
    return train.select(kept) if count else train, (Repeated(name, size, 0, len(train.keys) - len(kept)),)
