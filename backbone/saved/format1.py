"""``model.json`` as it was before it had a format: options equal to a default were left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import PositiveInt

_CONV = {"width": 1.0, "depth": None, "activation": "relu", "normalisation": None, "pooling": "avg"}
_PICTURES = {"size": None, "channels": None, "duplicates": "keep"}
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "mlp": {
        **{"width": 1.0, "units": None, "depth": 2, "initialisation": "torch", "activation": "relu"},
        **{"normalisation": "none", "dropout": 0.0},
    },
    **dict.fromkeys(("lenet5", "vgg-tiny", "vgg-small", "resnet-tiny", "resnet18", "airnet"), _CONV),
    "snn.qcfs": {"levels": 4, "per": "channel", "threshold": None},
    "snn.spiking": {
        **{"neuron": "lif", "decay": None, "synaptic_decay": None, "adaptation": None, "adaptation_decay": None},
        **{"threshold": 1.0, "reset": "soft", "detach_reset": True, "refractory": 0, "surrogate": "arctan"},
        **{"slope": None, "engine": "fused", "steps": 4, "start": 0.0, "learn_scale": False, "truncate": None},
        "checkpoint_steps": None,
    },
    **dict.fromkeys(("omniglot", "parquet", "folder"), _PICTURES),
    "moving-shapes": {"frames": 16, "stroke": 2, "size": 16, "samples": 6000, "order": "natural", "seed": 0},
    "saccades": {"frames": 12, "travel": 6, "size": None, "threshold": 0.35, "mismatch": 0.03, "dark": 0.2},
    "tonic": {"frames": 16, "pool": 1},
}
"""What the options of all that such files name were by default, by name; those of other packages are as they are."""


@dataclass
class Thing:
    name: str
    options: dict[str, Any]


@dataclass
class Content:
    """What must be there, and of which type is what may be."""

    backbone: str
    backbone_options: dict[str, Any]
    in_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    classes: list[str]
    sha256: str
    adapters: list[Thing] = field(default_factory=list)
    dataset: str = ""
    dataset_options: dict[str, Any] = field(default_factory=dict)
    validation: float = 0.0
    data_sha256: str = ""
    meanings: list[list[str]] = field(default_factory=list)
    view: Thing | None = None
    cautions: list[str] = field(default_factory=list)
    incomplete: str = ""
    precision: str | None = None
    test_accuracy: float | None = None


def in_full(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a thing as they were given, with the defaults of that time."""
    return {**DEFAULTS.get(name, {}), **options}
