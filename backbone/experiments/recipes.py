"""Training defaults per network and dataset. Chosen on held-out training images; no torch here."""

from __future__ import annotations

from collections.abc import Mapping

from backbone.contract import Scalar

_BASE: dict[str, Scalar] = {
    "epochs": 12,
    "batch_size": 128,
    "optimizer": "adamw",
    "lr": 2e-3,
    "momentum": 0.9,
    "weight_decay": 0.05,
    "schedule": "onecycle",
    "warmup": 0.2,
    "label_smoothing": 0.0,
    "flip": "none",
    "translate": 0,
    "cutout": 0,
    "randaugment": 0,
    "ema": 0.0,
    "clip": 0.0,
}


def recipe(backbone: str, dataset: str) -> Mapping[str, Scalar]:
    """Every training value for one network on one dataset (``dataset`` may carry a path)."""
    return dict(_BASE)
