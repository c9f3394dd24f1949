"""What is drawn by lot for every image, whichever images are drawn with it, in whatever order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engram.backbone.data.lots import lots, mixed

_PARTS = 8


@dataclass(frozen=True)
class Draws:
    """Numbers that depend on an image's key alone, as tensors on the CPU.

    Each of the methods draws the same numbers at every call; ``part`` (0 to 7) tells several draws of one image apart.
    """

    keys: np.ndarray
    """``[B] uint64``."""

    @classmethod
    def of(cls, seed: int, places: Tensor) -> Draws:
        """The draws of the images at ``places: [B] int64`` under a seed in [0, 2**63)."""
        numbers = places.numpy().astype(np.uint64)
        return cls(mixed(mixed(numbers + np.uint64(1)) + np.uint64(seed)))

    def __len__(self) -> int:
        return len(self.keys)

    def select(self, rows: Tensor) -> Draws:
        """The draws of some of the images, ``rows: [M] int64``."""
        return Draws(self.keys[rows.numpy()])

    def words(self, *shape: int, part: int = 0) -> Tensor:
        """Uniform over the whole numbers below 2**16: ``[B, *shape] int32``."""
        return torch.from_numpy(self._pieces(np.uint16, shape, part).astype(np.int32))

    def uniform(self, *shape: int, part: int = 0) -> Tensor:
        """Uniform over (0, 1), 32 bits of it: ``[B, *shape] float64``."""
        return torch.from_numpy((self._pieces(np.uint32, shape, part) + 0.5) / 2.0**32)

    def _pieces(self, kind: type[np.unsignedinteger], shape: tuple[int, ...], part: int) -> np.ndarray:
        count, each = int(np.prod(shape)), 8 // np.dtype(kind).itemsize
        whole = lots(lots(self.keys, _PARTS)[:, part], -(-count // each)).astype("<u8", copy=False)
        return whole.view(np.dtype(kind).newbyteorder("<"))[:, :count].reshape(len(self.keys), *shape)
