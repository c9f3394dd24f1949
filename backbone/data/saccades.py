"""Events from any set of still pictures: ``saccades:NAME`` shows them to a simulated camera."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from engram.backbone.data.camera import Camera
from engram.backbone.data.columns import Columns, without_masks
from engram.backbone.data.event_options import SaccadesOptions
from engram.backbone.data.fingerprint import Fingerprint
from engram.backbone.data.load import open_source
from engram.backbone.data.sets import Source, Split, pixel_sums
from engram.backbone.errors import must

_MEASURED = 2048  # pictures whose events give mean and deviation
_BATCH = 128


class SaccadeSplit:
    """Pictures of which events are made batch by batch, where the batch is needed.

    Kept, the events of 70,000 digits would take 1.9 GB in every process; made again they are the same, and it takes a
    fraction of what a network needs for them.
    """

    def __init__(self, pictures: Split, camera: Camera) -> None:
        self.pictures, self.camera = pictures, camera

    @property
    def labels(self) -> Tensor:
        return self.pictures.labels

    @property
    def columns(self) -> Columns:
        return without_masks(self.pictures.columns)

    @property
    def in_shape(self) -> tuple[int, int, int]:
        return self.camera.out_shape

    @property
    def frames(self) -> int:
        return self.camera.frames

    def __len__(self) -> int:
        return len(self.pictures)

    def batches(self, order: Tensor, batch_size: int, device: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for pictures, labels, positions in self.pictures.batches(order, batch_size, device):
            yield torch.cat([self.camera(part) for part in pictures.split(_BATCH)]), labels, positions

    def select(self, indices: Tensor) -> SaccadeSplit:
        return SaccadeSplit(self.pictures.select(indices), self.camera)

    def and_also(self, other: SaccadeSplit) -> SaccadeSplit:
        return SaccadeSplit(self.pictures.and_also(other.pictures), self.camera)

    def moments(self) -> tuple[Tensor, Tensor, int]:
        """Of the events of 2,048 pictures, or all when there are fewer, at equal distances."""
        channels, height, width = self.in_shape
        count = min(len(self), _MEASURED)
        chosen = torch.arange(count) * len(self) // max(count, 1)
        total = torch.zeros(2, channels, dtype=torch.int64)
        for events, _, _ in self.batches(chosen, _BATCH, "cpu"):
            total += torch.stack([torch.from_numpy(each.sum(0)) for each in pixel_sums(events.numpy())])
        return total[0], total[1], count * self.frames * height * width


def open_saccades(
    path: str | None, options: SaccadesOptions | None, *, root: Path, download: bool, budget_bytes: int
) -> Source:
    """Events ``[N, T, 2, H + TRAVEL, W + TRAVEL]`` of the pictures of another dataset, with its splits and classes.

    Args:
        path: the other dataset as it is named everywhere: ``mnist``, ``folder:PATH``.
        options: of the camera; the other dataset takes its defaults.
        root: as for the other dataset, and so ``download``.
        download: whether the other dataset may be fetched.
        budget_bytes: events are never kept, so it concerns nothing.

    Raises:
        UserError: the other dataset cannot be opened, or is not one of stills in one or three channels.
    """
    base = open_source(path or "", {}, root=root, download=download)
    if base.train.frames is not None:
        raise must("saccades:NAME", "the name of a dataset of still pictures", path, "Use that dataset by itself.")
    camera = Camera(base.train.in_shape, options or SaccadesOptions())
    digest = Fingerprint()
    digest.words((base.fingerprint,))
    camera.identify(digest)
    parts = {name: SaccadeSplit(part, camera) for name, part in base.parts.items()}
    pictures = base.pictures or base.fingerprint
    return replace(base, parts=parts, fingerprint=digest.hexdigest(), pictures=pictures)
