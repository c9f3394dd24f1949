"""What tells images apart by their pixels alone; no torch here."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from engram.backbone.errors import UserError, must


def keys_of(images: np.ndarray) -> np.ndarray:
    """``[N] int64``, equal where images ``[N, ...] uint8`` are: 64 bits of a hash of each one's pixels.

    >>> first, second, third = keys_of(np.array([[1, 2], [3, 4], [1, 2]], np.uint8)).tolist()
    >>> first == third, first == second
    (True, False)
    """
    whole = np.ascontiguousarray(images)
    return np.frombuffer(b"".join(blake2b(image, digest_size=8).digest() for image in whole), np.int64)


def refused(split: str, count: int, size: int) -> UserError:
    """The error for a split ``count`` of whose images are training images too, where the user forbids that."""
    got = f"{count} of its {size} images among the training images"
    return must(f"the {split} set", "apart from the training images", got, "Take them out of one of the two.")
