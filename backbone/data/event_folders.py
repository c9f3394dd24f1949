"""One folder of event recordings per class: ``events:PATH``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch

from engram.backbone.data import files
from engram.backbone.data.binning import Binning
from engram.backbone.data.checking import two_tests
from engram.backbone.data.columns import indexed
from engram.backbone.data.event_options import EventsOptions
from engram.backbone.data.fingerprint import Fingerprint
from engram.backbone.data.folders import labels_of
from engram.backbone.data.gathering import gathered
from engram.backbone.data.names import TEST, TRAIN, shown
from engram.backbone.data.recordings.reading import decode, find_recordings
from engram.backbone.data.recordings.survey import surveyed
from engram.backbone.data.sets import Source
from engram.backbone.data.splits import stratified
from engram.backbone.errors import UserError, must

_TEST = 1  # the salt of the fifth that any set without a test set gives: a fifth asked for is the same recordings

_AT_ONCE, _AT_ONCE_BYTES = 64, 2**26


@dataclass(frozen=True)
class FileStore:
    """Recordings that become frames when they are asked for."""

    paths: tuple[Path, ...]
    options: EventsOptions
    binning: Binning

    @property
    def in_shape(self) -> tuple[int, int, int]:
        return self.binning.in_shape

    @property
    def frames(self) -> int:
        return self.binning.frames

    def images(self, indices: Sequence[int]) -> np.ndarray:
        return np.stack([self.binned(files.read(self.paths[i], "a recording"), self.paths[i]) for i in indices])

    def binned(self, blob: bytes, path: Path) -> np.ndarray:
        """The frames ``[T, C, H, W] uint8`` of the bytes of a file."""
        events = decode(blob, path, self.options)
        try:
            return self.binning(events.t, events.x, events.y, events.p)
        except ValueError as error:  # it was another when the set was surveyed
            raise must("a recording", "as it was", f"{shown(path)} ({error})", "Restore it.") from error


def open_events(
    path: str | None, options: EventsOptions | None, *, root: Path, download: bool, budget_bytes: int
) -> Source:
    """Recordings as counts of events, ``[N, T, 2, H, W]``, of the folders of PATH, or of PATH below ROOT.

    Raises:
        UserError: nothing is there, a class has no recording, recordings are damaged or of several sensors, or what
            is asked for does not fit them; one line for each.
    """
    o = options or EventsOptions()
    parts = find_recordings(path, root)
    if o.test is not None and TEST in parts:
        raise two_tests(o.test)
    paths = tuple(file for part in parts.values() for held in part.values() for file in held)
    binning, problems = surveyed(paths, o)
    if binning is None:
        raise UserError("\n".join(problems))
    classes, known = labels_of(parts)
    labels = torch.cat(list(known.values()))
    store, digest, keys = FileStore(paths, o, binning), Fingerprint(), np.empty(len(paths), np.int64)

    def make(span: range) -> np.ndarray:
        blobs = [files.read(path, "a recording") for path in paths[span.start : span.stop]]
        for index, blob in zip(span, blobs, strict=True):
            digest.blob(blob)
            keys[index] = np.frombuffer(blake2b(blob, digest_size=8).digest(), np.int64)[0]
        return np.stack([store.binned(blob, paths[index]) for index, blob in zip(span, blobs, strict=True)])

    sizes = [len(part) for part in known.values()]
    at_once = max(_AT_ONCE_BYTES // math.prod(binning.shape), 1)
    everything = gathered(store, make, labels, indexed(*sizes), budget_bytes, min(at_once, _AT_ONCE))
    rows = dict(zip(known, torch.arange(len(labels)).split(sizes), strict=True))
    if o.test is not None:
        kept, held = stratified(labels, o.test, _TEST)
        rows = {TRAIN: kept, TEST: held}
    digest.words((*classes, *rows))
    digest.array(labels.numpy())
    digest.array(np.array([len(each) for each in rows.values()]))
    split = {name: everything.select(each) for name, each in rows.items()} if len(rows) > 1 else {TRAIN: everything}
    ordered = torch.from_numpy(keys)[torch.cat(list(rows.values()))]
    return Source(split, classes, digest.hexdigest(), ordered, o.duplicates)
