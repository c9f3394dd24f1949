"""One sha256 over everything a dataset is made of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from torch import Tensor


class Fingerprint:
    """A sha256 that is fed piece by piece; every piece is framed, so no two different sets feed the same bytes."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def words(self, words: Sequence[str]) -> None:
        """Add a list of names."""
        self._frame("words", len(words))
        for word in words:
            self.blob(word.encode())

    def blob(self, data: bytes) -> None:
        """Add one file's content."""
        self._frame("bytes", len(data))
        self._sha.update(data)

    def array(self, values: np.ndarray) -> None:
        """Add numbers, ``[N, ...]``, a few thousand rows at a time: no copy of the whole is made."""
        self._frame(f"{values.dtype.str}{list(values.shape)}", values.nbytes)
        for start in range(0, len(values), 4096):
            self._sha.update(np.ascontiguousarray(values[start : start + 4096]).reshape(-1).data)

    def hexdigest(self) -> str:
        return self._sha.hexdigest()

    def _frame(self, kind: str, length: int) -> None:
        self._sha.update(f"\n{kind} {length}\n".encode())


def of_tensors(classes: Iterable[str], parts: Mapping[str, tuple[Tensor, Tensor]]) -> str:
    """Fingerprint of sets in memory: class names, then images and labels of each named part."""
    digest = Fingerprint()
    digest.words(tuple(classes))
    for name, (images, labels) in parts.items():
        digest.words((name,))
        digest.array(images.numpy())
        digest.array(labels.numpy())
    return digest.hexdigest()
