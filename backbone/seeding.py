"""Seeds. Randomness in training is a pure function of (seed, purpose, step), so that resuming needs no saved state."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from typing import Any, cast

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


def random_state() -> dict[str, Any]:
    """State of the global generators, as containers that ``weights_only=True`` accepts."""
    name, keys, *rest = cast("tuple[Any, ...]", np.random.get_state(legacy=True))
    state = {"python": random.getstate(), "numpy": [name, keys.tolist(), *rest], "torch": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put the global generators back to where they were."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
