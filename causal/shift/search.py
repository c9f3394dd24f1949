"""A random search for hyper-parameters, as DomainBed makes it; no torch here.

Every value has a default and a distribution, and is drawn by itself: what is drawn of one depends on the seed, the
number of the draw and its own name alone, so that a value more changes no other.

Source: Gulrajani and Lopez-Paz 2021 (arXiv 2007.01434), appendix D, table 8, with small images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from engram.backbone.shares import share

Lot = Callable[[float], Any]
"""What a number in [0, 1) makes of a value."""
_Values = Mapping[str, tuple[Any, Lot]]


def _power(base: float, low: float, high: float) -> Lot:
    return lambda u: base ** (low + u * (high - low))


def _whole(lot: Lot) -> Lot:
    return lambda u: int(lot(u))


_TRAINING: _Values = {
    "lr": (1e-3, _power(10, -4.5, -2.5)),
    "batch_size": (128, lambda u: 2 * int(_power(2, 3, 9)(u))),
}
"""Learning rate, and images in a batch of two environments: 64 of each, or 8 to 512."""
_FIXED: Mapping[str, Any] = {
    "optimizer": "adamw",
    "momentum": 0.9,
    "weight_decay": 0.0,
    "schedule": "constant",
    "warmup": 0.0,
    "balance": "environment",
    "flip": "none",
    "translate": 0,
    "label_smoothing": 0.0,
}
"""What DomainBed does with small images in every trial: plain Adam at one rate, environments in equal shares."""
_ANNEALED: _Values = {"anneal": (500, _whole(_power(10, 0, 4))), "divide": (False, lambda u: False)}
_OBJECTIVES: Mapping[str, _Values] = {
    "irm": {"penalty": (100.0, _power(10, -1, 5)), **_ANNEALED},
    "vrex": {"penalty": (10.0, _power(10, -1, 5)), **_ANNEALED},
    "coral": {"penalty": (1.0, _power(10, -1, 1))},
    "mmd": {"penalty": (1.0, _power(10, -1, 1))},
    "groupdro": {"rate": (0.01, _power(10, -3, -1)), "column": ("environment", lambda u: "environment")},
}


def drawn(objective: str, seed: int, number: int, steps: int | None = None) -> dict[str, Any]:
    """The values of a training by field, those of the objective under ``objective_options``.

    Args:
        objective: by name; of one that is not searched nothing is drawn.
        seed: of the trial.
        number: which draw; 0 has the defaults.
        steps: of the training; a penalty that would come into force after the last of them counts once, as it does
            in DomainBed. None: not known.

    >>> drawn("groupdro", 0, 0)["lr"], drawn("groupdro", 0, 0)["objective_options"]
    (0.001, {'rate': 0.01, 'column': 'environment'})
    >>> drawn("irm", 0, 1)["lr"] == drawn("vrex", 0, 1)["lr"] != drawn("irm", 0, 2)["lr"]
    True
    """
    own = _OBJECTIVES.get(objective, {})

    def values(held: _Values) -> dict[str, Any]:
        return {
            name: lot(share(f"{seed}/search/{name}/{number}")) if number else usual
            for name, (usual, lot) in held.items()
        }

    options = values(own)
    if steps is not None and options.get("anneal", 0) >= steps:
        options |= {"penalty": 1.0, "anneal": 0}
    return {**_FIXED, **values(_TRAINING), "objective_options": options}
