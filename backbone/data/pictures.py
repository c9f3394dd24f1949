"""Sets made of encoded pictures: one pass checks, fingerprints and decodes them, within the memory budget."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from engram.backbone.data.columns import Columns, identify, indexed
from engram.backbone.data.decoding import Decoder, bombs_are_errors
from engram.backbone.data.encoded import Pictures, pieces
from engram.backbone.data.fingerprint import Fingerprint
from engram.backbone.data.keys import keys_of
from engram.backbone.data.options import PictureOptions
from engram.backbone.data.sets import MemorySplit, Source, Split, pixel_sums
from engram.backbone.data.streaming import StreamedSplit
from engram.backbone.data.survey import survey
from engram.backbone.errors import UserError, must

_CHUNK_BYTES = 4 * 2**20  # of decoded pixels per piece of work
_CHUNK_PICTURES = 256
_READING = "pictures 2: upright, as their EXIF has it"  # what fingerprints begin with: other pixels from the same bytes


@dataclass(frozen=True)
class PictureStore:
    """Pictures that are decoded when they are asked for."""

    pictures: Pictures
    decoder: Decoder

    @property
    def in_shape(self) -> tuple[int, int, int]:
        return self.decoder.in_shape

    @property
    def frames(self) -> None:
        return None

    def images(self, indices: Sequence[int]) -> np.ndarray:
        with bombs_are_errors():
            return self.decode(self.pictures.read(indices), indices)

    def decode(self, blobs: Sequence[bytes | None], indices: Sequence[int]) -> np.ndarray:
        """``[len(indices), C, H, W] uint8`` from the encoded bytes of these pictures."""
        out = np.empty((len(indices), *self.in_shape), np.uint8)
        step = self.chunk
        for start in range(0, len(indices), step):
            span = slice(start, start + step)
            alike = self.decoder.decode_alike(blobs[span])
            if alike is not None:
                out[span] = alike
                continue
            for row, (blob, index) in enumerate(zip(blobs[span], indices[span], strict=True), start):
                out[row] = self.decoder.decode(blob, self.pictures.name(index))
        return out

    @property
    def chunk(self) -> int:
        """Pictures per piece of work."""
        return min(max(_CHUNK_BYTES // int(np.prod(self.in_shape)), 1), _CHUNK_PICTURES)


@dataclass(frozen=True)
class Labelled:
    """What is known of pictures before they are decoded, part after part in their order."""

    parts: Mapping[str, Tensor]
    """Labels ``[n] int64`` of ``train`` and what other parts there are."""
    classes: tuple[str, ...]
    """Names of the labels."""
    told: Columns = field(default_factory=dict)
    """Columns of values that neither pictures nor classes tell: part of the fingerprint."""
    implied: Columns = field(default_factory=dict)
    """Columns that follow from the classes and the order of the pictures."""
    disjoint: bool = False
    """Whether no class stands in two parts."""


def open_pictures(pictures: Pictures, known: Labelled, options: PictureOptions, budget_bytes: int) -> Source:
    """Decode every picture once, so that a damaged one is found now and not in the middle of training.

    Args:
        pictures: all of them, part after part.
        known: their labels, and what else is known.
        options: size and channels.
        budget_bytes: sets that take more when decoded are streamed, and only their sums are kept.

    Raises:
        UserError: pictures are damaged or do not fit the others, one line for each problem.
    """
    try:
        return _opened(pictures, known, options, budget_bytes)
    except UserError as first:
        problems = survey(pictures, options, whole=True)  # all of them, now that there is one
        raise (UserError("\n".join(problems)) if problems else first) from first


def _opened(pictures: Pictures, known: Labelled, options: PictureOptions, budget_bytes: int) -> Source:
    labels, sizes = torch.cat(list(known.parts.values())), [len(part) for part in known.parts.values()]
    if not len(pictures):
        raise must("a dataset", "at least one picture", "none", "Look into the files it was read from.")
    with bombs_are_errors():
        store = PictureStore(pictures, Decoder.like(pictures.read([0])[0], pictures.name(0), options))
        size = len(pictures) * int(np.prod(store.in_shape))
        held = np.empty((len(pictures), *store.in_shape), np.uint8) if size <= budget_bytes else None
        sums = np.empty((2, len(pictures), store.in_shape[0]), np.int64)
        keys = np.empty(len(pictures), np.int64)
        digest = Fingerprint()
        digest.words((_READING,))
        for span, images in _decoded(store, digest):
            keys[span] = keys_of(images)
            if held is not None:
                held[span] = images
            else:
                sums[:, span] = pixel_sums(images)
    digest.words((*known.classes, *known.parts))
    digest.array(labels.numpy())
    digest.array(np.array(sizes))
    identify(digest, known.told)
    columns = {**indexed(*sizes), **known.implied, **known.told}
    everything: Split
    if held is not None:
        everything = MemorySplit(torch.from_numpy(held), labels, columns)
    else:
        first, second = torch.from_numpy(sums)
        everything = StreamedSplit(store, torch.arange(len(labels)), labels, first, second, columns)
    chosen = dict(zip(known.parts, torch.arange(len(labels)).split(sizes), strict=True))
    parts = {name: everything if len(chosen) == 1 else everything.select(rows) for name, rows in chosen.items()}
    about = (digest.hexdigest(), torch.from_numpy(keys), options.duplicates, known.disjoint)
    return Source(parts, known.classes, *about)


def _decoded(store: PictureStore, digest: Fingerprint) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield all pictures in order, decoded by a few threads that are never far ahead."""
    threads = min(os.cpu_count() or 1, 8)
    waiting: deque[tuple[slice, Future[np.ndarray]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for indices, blobs in pieces(store.pictures, store.chunk):
                for blob in blobs:
                    digest.blob(blob or b"")
                waiting.append((slice(indices.start, indices.stop), pool.submit(store.decode, blobs, indices)))
                if len(waiting) > 2 * threads:
                    span, images = waiting.popleft()
                    yield span, images.result()
            for span, images in waiting:
                yield span, images.result()
        finally:
            for _, images in waiting:
                images.cancel()
