"""Training defaults per network and dataset. Chosen on held-out training images; no torch here."""

from __future__ import annotations

from engram.backbone.contract import Scalar
from engram.backbone.training.options import TrainingOptions

_DIGITS: dict[str, Scalar] = {"epochs": 30, "batch_size": 32, "lr": 8e-3}
_GREY: dict[str, Scalar] = {"epochs": 15, "batch_size": 128, "lr": 3e-3, "translate": 2}
_COLOUR: dict[str, Scalar] = {
    "epochs": 20,
    "batch_size": 128,
    "lr": 3e-3,
    "label_smoothing": 0.1,
    "flip": "alternate",
    "translate": 2,
}
_AIRNET: dict[str, Scalar] = {
    "epochs": 24,
    "batch_size": 250,
    "optimizer": "muon",
    "lr": 0.08,
    "momentum": 0.6,
    "warmup": 0.1,
    "label_smoothing": 0.2,
}
_BY_DATASET: dict[str, dict[str, Scalar]] = {
    "digits": _DIGITS,
    "mnist": _GREY,
    "kmnist": _GREY,
    "fashion-mnist": {**_GREY, "flip": "random"},
    "cifar10": _COLOUR,
    "cifar100": _COLOUR,
}


# Rates belong to an optimizer: these replace the recipe's when another one is asked for.
_OPTIMIZERS: dict[str, dict[str, Scalar]] = {
    "adamw": {"lr": 2e-3, "momentum": 0.9, "weight_decay": 0.05},
    "sgd": {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
    "muon": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.05},
}


def recipe(backbone: str, dataset: str, optimizer: str | None = None) -> dict[str, Scalar]:
    """The training values for one network on one dataset that differ from those of `TrainingOptions`.

    ``dataset`` may carry a path; corrupted pictures are trained on as others.

    >>> recipe("airnet", "cifar10")["optimizer"], recipe("airnet", "cifar10", "sgd")["lr"]
    ('muon', 0.05)
    """
    name = dataset.removeprefix("corrupted:").partition(":")[0]
    values = dict(_BY_DATASET.get(name, {}))
    if backbone == "airnet" and name in ("cifar10", "cifar100"):
        values |= _AIRNET
    if optimizer is not None and optimizer != values.get("optimizer", TrainingOptions.optimizer):
        values |= {"optimizer": optimizer, **_OPTIMIZERS[optimizer]}
    return values
