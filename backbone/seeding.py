"""Seeds. Randomness in training is a pure function of (seed, purpose, step), so that resuming needs no saved state."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def derive(seed: int, purpose: str, step: int = 0) -> int:
    """A seed in [0, 2**63) for one purpose and step, unrelated to its neighbours.

    >>> derive(0, "order", 1) == derive(0, "order", 1) != derive(0, "order", 2)
    True
    """
    digest = hashlib.blake2b(f"{seed}/{purpose}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, purpose: str, step: int = 0, device: str = "cpu") -> torch.Generator:
    """A generator of its own for one purpose and step."""
    return torch.Generator(device).manual_seed(derive(seed, purpose, step))
