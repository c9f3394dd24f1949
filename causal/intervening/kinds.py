"""What is put in the place of a value: each kind of intervention is a small value, apart from where it is done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.errors import must
from engram.backbone.seeding import generator


@dataclass(frozen=True, eq=False)
class Source:
    """What a kind needs of other images: what the network, as it is, has at the same place for them.

    Attributes:
        images: [N, C, H, W] or [N, T, C, H, W], as the network takes them.
        labels: [N] int64; with them the mean of each class is needed, class after class.
        mean: the mean of all is needed. Where neither, the value of each.
    """

    images: Tensor
    labels: Tensor | None = None
    mean: bool = False


@dataclass(frozen=True)
class At:
    """What a value is, for those kinds that draw by lot: the name of its site, and the numbers of its steps."""

    site: str
    steps: Sequence[int]


class Kind(Protocol):
    """What is put in the place of a value; each kind is a frozen dataclass."""

    @property
    def source(self) -> Source | Tensor | None:
        """What it needs of other images, or their values [S, N, C', ...] themselves; None: nothing."""
        ...

    def value(self, own: Tensor, others: Tensor | None, at: At) -> Tensor:
        """What is put in the place of ``own``.

        Args:
            own: [S', B, C', ...], what the network has there; it is left as it is.
            others: [S', N, C', ...], what ``source`` asked for, at the same steps.
            at: which value it is.

        Returns: [S', B, C', ...], in which any dimension may be 1, in memory of its own.
        """
        ...


@dataclass(frozen=True, eq=False)
class Constant:
    """A number, or one for every channel of the place, [C'].

    Zero is one: most networks never have it at every cell, so that what they answer is off what they learned from.
    """

    number: float | Tensor = 0.0
    source = None

    def value(self, own: Tensor, others: Tensor | None, at: At) -> Tensor:
        number = torch.as_tensor(self.number, dtype=own.dtype, device=own.device).clone()
        if number.ndim == 0:
            return number.view([1] * own.ndim)
        if number.shape != own.shape[2:3]:
            rule = f"a number, or one for each of the {own.shape[2]} channels of the place"
            raise must(f"what {at.site} is set to", rule, f"shape {list(number.shape)}", "Use put for whole values.")
        return number.view(1, 1, -1, *[1] * (own.ndim - 3))


@dataclass(frozen=True, eq=False)
class Given:
    """Values that somebody has: [S, N, C', ...], a row for every step of the place, as `collected` gives them.

    N is 1, or as many as a batch has.
    """

    values: Tensor

    @property
    def source(self) -> Tensor:
        return self.values

    def value(self, own: Tensor, others: Tensor | None, at: At) -> Tensor:
        return _another(own, others, 0, at)


@dataclass(frozen=True, eq=False)
class Mean:
    """The mean of the place over images, cell by cell and step by step; None: over the images of the batch."""

    images: Tensor | None = None

    @property
    def source(self) -> Source | None:
        return None if self.images is None else Source(self.images, mean=True)

    def value(self, own: Tensor, others: Tensor | None, at: At) -> Tensor:
        return own.mean(1, keepdim=True) if others is None else others


@dataclass(frozen=True, eq=False)
class ClassMean:
    """The mean of the place over the images of one class.

    Attributes:
        images: of all classes; ``labels``: [N] int64, theirs.
        classes: whose mean, for all images of a batch, or [B] int64, one for each.

    Raises:
        UserError: labels are not one for each image, or a class has no image.
    """

    images: Tensor
    labels: Tensor
    classes: int | Tensor

    def __post_init__(self) -> None:
        if self.labels.shape != (len(self.images),):
            got = f"shape {list(self.labels.shape)}"
            raise must("labels of a class mean", f"one for each of {len(self.images)} images", got, "Give both.")
        asked = {self.classes} if isinstance(self.classes, int) else {*self.classes.tolist()}
        if missing := sorted(asked - {*self.labels.tolist()}):
            known = ", ".join(map(str, self.labels.unique().tolist()))
            raise must("the class of a class mean", f"one that has images ({known})", missing[0], "Give some of it.")

    @property
    def source(self) -> Source:
        return Source(self.images, self.labels)

    def value(self, own: Tensor, others: Tensor | None, at: At) -> Tensor:
        assert others is not None
        if isinstance(self.classes, int):
            return others[:, self.classes : self.classes + 1].clone()
        _as_many("classes of a class mean", len(self.classes), own.shape[1])
        return others.index_select(1, self.classes.to(own.device))


@dataclass(frozen=True, eq=False)
class Resample:
    """The value that the same place has for another image (interchange).

    Attributes:
        images: one, or as many as a batch has, for each image another one; None: every image of the batch takes the
            value of another one of it, by lot.
        seed: of that lot, which is the same at all places and steps.
    """

    images: Tensor | None = None
    seed: int = 0

    @property
    def source(self) -> Source | None:
        return None if self.images is None else Source(self.images)

    def value(self, own: Tensor, others: Tensor | None, at: At) -> Tensor:
        return _another(own, others, self.seed, at)


@dataclass(frozen=True, eq=False)
class Interpolation:
    """A value between its own and that of another image: ``(1 - share) own + share another``.

    Attributes:
        share: from 0 to 1.
        images, seed: as in `Resample`.
    """

    share: float
    images: Tensor | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise must("the share of another value", "from 0 to 1", self.share, "1 is the other value alone.")

    @property
    def source(self) -> Source | None:
        return None if self.images is None else Source(self.images)

    def value(self, own: Tensor, others: Tensor | None, at: At) -> Tensor:
        return torch.lerp(own, _another(own, others, self.seed, at), self.share)


@dataclass(frozen=True, eq=False)
class Noise:
    """Gaussian noise, drawn anew for every image, step, channel and cell, and the same in every run of a batch.

    Attributes:
        deviation: its standard deviation, in the units of the place.
        mean: of what is set in the place of the value; None: the noise is added to it.
        seed: of the draws.
    """

    deviation: float
    mean: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.deviation < math.inf:
            raise must("the deviation of noise", "a number from 0", self.deviation, "It is in the units of the place.")

    source = None

    def value(self, own: Tensor, others: Tensor | None, at: At) -> Tensor:
        drawn = [
            torch.randn(own.shape[1:], generator=generator(self.seed, f"causal.noise/{at.site}", step))
            for step in at.steps
        ]
        noise = torch.stack(drawn).to(own.device, own.dtype) * self.deviation
        return (own if self.mean is None else self.mean) + noise


@dataclass(frozen=True, eq=False)
class Background:
    """The foreground of each image before the background of another one: ``m own + (1 - m) another``.

    On maps m is the share of a cell that the foreground covers.

    Attributes:
        foreground: [B, H, W] bool, the foreground of every image of a batch, of its size; [1, H, W] of all of them.
        images, seed: as in `Resample`.
    """

    foreground: Tensor
    images: Tensor | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.foreground.dtype != torch.bool or self.foreground.ndim != 3:
            got = f"{self.foreground.dtype} of shape {list(self.foreground.shape)}"
            raise must("masks of the foreground", "[B, H, W] bool", got, "True is foreground.")

    @property
    def source(self) -> Source | None:
        return None if self.images is None else Source(self.images)

    def value(self, own: Tensor, others: Tensor | None, at: At) -> Tensor:
        if own.ndim != 5:
            got = f"{at.site}, which has none"
            raise must("a place whose background is swapped", "one with maps", got, "Choose a stage, or input.")
        _as_many("masks of the foreground", len(self.foreground), own.shape[1])
        height, width = own.shape[-2:]
        cover = F.adaptive_avg_pool2d(self.foreground.to(own.device, own.dtype), (height, width)).unsqueeze(1)
        return cover * own + (1 - cover) * _another(own, others, self.seed, at)


def _another(own: Tensor, others: Tensor | None, seed: int, at: At) -> Tensor:
    """The value of another image for every image of a batch: of those that were given, or of one another."""
    if others is not None:
        _as_many(f"images whose values {at.site} takes", others.shape[1], own.shape[1])
        return others
    return own.index_select(1, exchanged(own.shape[1], seed).to(own.device))


def _as_many(what: str, got: int, batch: int) -> None:
    if got not in (1, batch):
        raise must(what, f"one, or as many as the batch has images ({batch})", got, "Give one for each image.")


def exchanged(batch: int, seed: int) -> Tensor:
    """For every image of a batch the number of another one, by lot: all are in one circle. -> [batch] int64.

    Raises:
        UserError: there is only one image.

    >>> exchanged(4, seed=0).tolist()
    [3, 2, 0, 1]
    """
    if batch < 2:
        rule = "at least 2 images, where they take values of one another"
        raise must("a batch", rule, batch, "Give the images whose values are taken.")
    order = torch.randperm(batch, generator=generator(seed, "causal.exchanged", batch))
    return torch.empty_like(order).scatter_(0, order, order.roll(-1))
