from __future__ import annotations

import hashlib

import torch

from engram.backbone.data.columns import identify, indexed
from engram.backbone.data.fingerprint import Fingerprint
from engram.backbone.data.sets import MemorySplit, Source

CLASSES = ("left", "right")


def open_spots(path, options, *, root, download, budget_bytes):
    """A bright spot, left or right, on a background that mostly tells which: ``[N, 1, 8, 8]``.

    ``group`` is twice the class and one more where the background is the rare one.
    """
    parts = {"train": _part(options.samples, options.rare, 0), "test": _part(options.samples // 2, 0.5, 1)}
    digest = Fingerprint()
    digest.words(CLASSES)
    for name, part in parts.items():
        digest.words((name,))
        digest.array(part.images.numpy())
        digest.array(part.labels.numpy())
        identify(digest, {"group": part.columns["group"]})
    return Source(parts, CLASSES, digest.hexdigest())


def _part(count, rare, number):
    random = torch.Generator().manual_seed(int(hashlib.sha256(f"spots {number}".encode()).hexdigest()[:8], 16))
    labels = torch.arange(count) % 2
    other = (torch.arange(count) // 2 % 10) < round(10 * rare)
    dark = (labels == 1) == other
    images = torch.randint(0, 40, (count, 1, 8, 8), generator=random)
    images[~dark] += 100
    rows = torch.randint(0, 8, (count,), generator=random)
    images[torch.arange(count), 0, rows, labels * 4 + rows % 4] = 255
    columns = {**indexed(count), "group": 2 * labels + other}
    return MemorySplit(images.to(torch.uint8), labels, columns)
