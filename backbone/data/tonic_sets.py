"""Recordings of event cameras and of an artificial ear through the package tonic: ``tonic:NAME``.

tonic is GPL-3, so it is an optional extra and imported nowhere else; the frames are made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engram.backbone.data.binning import Binning
from engram.backbone.data.columns import indexed
from engram.backbone.data.event_options import TonicOptions
from engram.backbone.data.files import unfit
from engram.backbone.data.fingerprint import Fingerprint
from engram.backbone.data.gathering import gathered
from engram.backbone.data.locking import one_at_a_time
from engram.backbone.data.places import TONIC_FOLDERS, incomplete_tonic
from engram.backbone.data.sets import MemorySplit, Source, Split, in_memory
from engram.backbone.errors import UserError, must, nearest

_AT_ONCE = 256
_MOST = 2**20  # recordings: fifteen times those of the largest set


def open_tonic(
    path: str | None, options: TonicOptions | None, *, root: Path, download: bool, budget_bytes: int
) -> Source:
    """Recordings as counts of events, ``[N, T, C, H, W]``, with the published train and test sets.

    ``nmnist``: 60,000 and 10,000 digits, ``[2, 34, 34]`` (Orchard et al. 2015). ``dvs128-gesture``: 11 gestures under
    three lights, 1,077 and 264, ``[2, 128, 128]`` (Amir et al. 2017). ``shd``: 20 spoken digits, 8,156 and 2,264,
    ``[1, 1, 700]``, one row of 700 channels of the ear (Cramer et al. 2020). They are found below ROOT in the folders
    ``NMNIST``, ``DVSGesture`` and ``SHD``, as tonic leaves them there, archives included.

    Raises:
        UserError: the name is not one of these, tonic is not installed, or the recordings are absent or damaged.
    """
    name = path or ""
    if name not in TONIC_FOLDERS:
        raise must("tonic:NAME", "a set of tonic that is known here", repr(name), nearest(name, TONIC_FOLDERS))
    if find_spec("tonic") is None:
        remedy = "Install it: pip install 'engram[tonic]' (it is GPL-3, hence not there by itself)."
        raise must(f"tonic:{name}", "used with the package tonic installed", "none", remedy)
    o = options or TonicOptions()
    sets = tuple(_recordings(name, train, root, download) for train in (True, False))
    store = RecordingStore(name, sets, tuple(_in_order(each) for each in sets), o.frames, o.pool)
    digest = Fingerprint()
    everything = _read(store, budget_bytes, digest)
    digest.words(store.classes)
    digest.array(everything.labels.numpy())
    digest.array(np.array([len(order) for order in store.orders]))
    return Source(_parts(everything, len(store.orders[0])), store.classes, digest.hexdigest())


@dataclass(frozen=True)
class RecordingStore:
    """The recordings of one of tonic's data sets: those to train on, then those of the test set."""

    name: str
    sets: tuple[Any, ...]
    orders: tuple[Sequence[int], ...]
    """The positions in each set, in an order that is the same on every machine."""
    frames: int
    pool: int

    def __len__(self) -> int:
        return sum(len(order) for order in self.orders)

    @property
    def in_shape(self) -> tuple[int, int, int]:
        width, height, channels = self.sets[0].sensor_size
        return channels, -(-height // self.pool), -(-width // self.pool)

    @property
    def classes(self) -> tuple[str, ...]:
        names = self.sets[0].classes
        return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)

    def images(self, indices: Sequence[int]) -> np.ndarray:
        return np.stack([self.read(index)[0] for index in indices])

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Frames ``[T, C, H, W] uint8`` and the label of one recording.

        Raises:
            UserError: it is damaged.
        """
        part = int(index >= len(self.orders[0]))
        recordings, order = self.sets[part], self.orders[part]
        position = order[index - part * len(self.orders[0])]
        where = recordings.data[position] if recordings.data else f"number {position} of {('train', 'test')[part]}"
        if recordings.data and (error := unfit(Path(where), f"a recording of tonic:{self.name}")):
            raise error
        try:
            events, label = recordings[position]
            return to_frames(events, recordings.sensor_size, self.frames, self.pool), int(label)
        except (OSError, EOFError, ValueError, KeyError, IndexError, MemoryError) as error:  # a size in a header, say
            got = f"{where} ({' '.join(str(error).split())})"
            raise must(f"a recording of tonic:{self.name}", "undamaged", got, "Restore it.") from error


def to_frames(events: np.ndarray, sensor: tuple[int, int, int], frames: int, pool: int) -> np.ndarray:
    """Count events in equal spans of the time between the first and the last (`engram.backbone.data.binning`).

    Args:
        events: ``[E]``, fields ``t`` (whole numbers), ``x``, ``p`` and, where the sensor has rows, ``y``.
        sensor: width, height, channels; with one channel ``p`` says nothing.
        frames: T.
        pool: side of the squares of pixels that are added up.

    Returns:
        ``[T, C, ceil(H / pool), ceil(W / pool)] uint8``; more than 255 events count as 255.

    Raises:
        ValueError: an event lies outside of the sensor.
    """
    x = events["x"]
    y = events["y"] if "y" in (events.dtype.names or ()) else np.zeros_like(x)
    return Binning(sensor[:2], sensor[2], frames, pool)(events["t"], x, y, events["p"])


def _in_order(recordings: Any) -> Sequence[int]:
    """tonic lists some files in the order of the disk; sets of a single file list none."""
    paths = recordings.data
    return sorted(range(len(paths)), key=lambda index: Path(paths[index]).parts) or range(len(recordings))


def _parts(everything: Split, count: int) -> dict[str, Split]:
    """The first ``count`` to train on, the others to test on."""
    if isinstance(everything, MemorySplit):  # as views: a copy of N-MNIST would take 1.6 GB
        spans = {"train": slice(count), "test": slice(count, None)}
        return in_memory({part: (everything.images[span], everything.labels[span]) for part, span in spans.items()})
    positions = torch.arange(len(everything))
    return {"train": everything.select(positions[:count]), "test": everything.select(positions[count:])}


def _read(store: RecordingStore, budget_bytes: int, digest: Fingerprint) -> Split:
    """All recordings, in memory or with their sums alone; every one is read and checked."""
    labels = torch.empty(len(store), dtype=torch.int64)

    def make(span: range) -> np.ndarray:
        read = [store.read(index) for index in span]
        labels[span.start : span.stop] = torch.tensor([label for _, label in read])
        frames = np.stack([each for each, _ in read])
        digest.array(frames)
        return frames

    columns = indexed(*(len(order) for order in store.orders))
    return gathered(store, make, labels, columns, budget_bytes, _AT_ONCE)


def _recordings(name: str, train: bool, root: Path, download: bool) -> Any:
    """One of tonic's data sets; tonic would download whatever it misses."""
    kind = getattr(import_module("tonic.datasets"), TONIC_FOLDERS[name])  # here, as it is optional and takes seconds

    class Guarded(kind):
        def download(self) -> None:
            if not download:
                raise incomplete_tonic(name, self.location_on_system)
            with one_at_a_time(root):
                if not self._check_exists():  # another worker may have been first
                    super().download()

    Guarded.__name__ = kind.__name__  # tonic names its folder by it
    try:
        recordings = Guarded(str(root), train=train)
    except (OSError, RuntimeError, ValueError, KeyError) as error:  # URLError is an OSError
        raise UserError(
            f"dataset tonic:{name} must be readable below {root}; got {type(error).__name__}: "
            f"{' '.join(str(error).split())}. Check the network and the folder, or put the files there."
        ) from error
    recordings.__class__ = kind  # a class made in a function cannot be sent to another process
    if not 0 < len(recordings) <= _MOST:
        got = f"{len(recordings) or 'none'} at {recordings.location_on_system}"
        raise must(f"dataset tonic:{name}", f"a set of 1 to {_MOST:,} recordings", got, "Unpack its archives there.")
    return recordings
