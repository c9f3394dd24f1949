"""Event frames of a whole set, made one recording after another: kept within the memory budget, or streamed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from engram.backbone.data.columns import Columns
from engram.backbone.data.sets import MemorySplit, Split, pixel_sums
from engram.backbone.data.streaming import ImageStore, StreamedSplit


def gathered(
    store: ImageStore,
    make: Callable[[range], np.ndarray],
    labels: Tensor,
    columns: Columns,
    budget_bytes: int,
    at_once: int,
) -> Split:
    """Every recording of a store, each made once, so that a damaged one is found now and not in the middle of training.

    Args:
        store: where recordings are made again if they cannot all be kept.
        make: positions -> frames ``[n, T, C, H, W] uint8``; called in order.
        labels: ``[N] int64``; ``make`` may fill them in.
        columns: what else is known of each.
        budget_bytes: sets that take more are streamed, and only their sums are kept.
        at_once: how many are made at a time.
    """
    count, shape = len(labels), (store.frames or 1, *store.in_shape)
    keep = count * math.prod(shape) <= budget_bytes
    held = np.empty((count, *shape), np.uint8) if keep else None
    sums = np.empty((2, count, shape[1]), np.int64)
    for start in range(0, count, at_once):
        span = range(start, min(start + at_once, count))
        frames = make(span)
        if held is not None:
            held[span.start : span.stop] = frames
        else:
            sums[:, span.start : span.stop] = pixel_sums(frames)
    if held is not None:
        return MemorySplit(torch.from_numpy(held), labels, columns)
    first, second = torch.from_numpy(sums)
    return StreamedSplit(store, torch.arange(count), labels, first, second, columns)
