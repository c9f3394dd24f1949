"""The 1,797 digits that come with scikit-learn: always there, so they are the default."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from engram.backbone.data.columns import indexed
from engram.backbone.data.fingerprint import of_tensors
from engram.backbone.data.sets import MemorySplit, Source
from engram.backbone.data.splits import stratified

TEST_SHARE = 0.2


def open_digits(path: str | None, options: object, *, root: Path, download: bool, budget_bytes: int) -> Source:
    """8x8 grey digits, ``[1797, 1, 8, 8]``; a fixed stratified fifth is the test set.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI 1998 (its test set).
    """
    pixels, target = _table()
    images = torch.from_numpy(((pixels.astype(np.int64) * 255 + 8) // 16).astype(np.uint8).reshape(-1, 1, 8, 8))
    labels = torch.from_numpy(target.astype(np.int64))
    classes = tuple("0123456789")
    everything = MemorySplit(images, labels, indexed(len(labels)))
    kept, held = stratified(labels, TEST_SHARE, salt=1)
    digest = of_tensors(classes, {"all": (images, labels)})
    return Source({"train": everything.select(kept), "test": everything.select(held)}, classes, digest)


def _table() -> tuple[np.ndarray, np.ndarray]:
    """Pixels ``[1797, 64]`` in 0..16 and labels; read from the file, as importing scikit-learn takes seconds."""
    spec = find_spec("sklearn")
    file = Path(spec.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if spec else Path()
    if file.is_file():
        with gzip.open(file, "rt") as text:
            table = np.loadtxt(text, delimiter=",", dtype=np.uint8)
        return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits  # another version may keep its file elsewhere

    pixels, target = load_digits(return_X_y=True)
    return np.asarray(pixels), np.asarray(target)
