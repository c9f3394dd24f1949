"""What a ``.net`` file says beside its weights and biases, as text, from which a saved network is made; no torch."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from engram.backbone.errors import must
from engram.snn.interchange.netx.fields import REMEDY
from engram.snn.interchange.netx.layers import Layer, Netx, Neuron, layers_of
from engram.snn.interchange.screening import screened

TRAINED = ("weight", "bias", "recurrent")
"""Arrays that a saved network has among its own."""
LARGEST = 1 << 26
"""Values of all arrays together."""


def content(path: Path) -> str:
    """The layers of a file as JSON: all but its weights and biases.

    Raises:
        UserError: as `engram.snn.interchange.netx.reading.read`.
    """
    return as_text(layers_of(screened(path, REMEDY), str(path)))


def as_text(file: Netx) -> str:
    """The structure of a file."""
    layers = [
        {name: _plain(name, value) for name, value in asdict(layer).items() if value is not None}
        for layer in file.layers
    ]
    return json.dumps({"layers": layers, "steps": file.steps, "delay": file.delay, "frames": file.frames})


def from_text(text: str) -> Netx:
    """Layers of that structure, whose weights have the signs and the range of those of the file, and biases none.

    Raises:
        UserError: the text is no such structure.
    """
    try:
        tree = json.loads(text)
        left = [LARGEST]
        layers = tuple(_layer(each, left) for each in tree["layers"])
        return Netx(layers, tree["steps"], tree["delay"], tree["frames"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        got = f"{type(error).__name__}: {error}".splitlines()[0]
        raise must("the structure of a saved .net network", "one that engram wrote", got, REMEDY) from None


def _plain(name: str, value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if name not in TRAINED:
        return value.tolist()
    ends = (
        [int(value.min()), int(value.max()), int((value & 1).any())] if value.size > 3 else value.reshape(-1).tolist()
    )
    return {"shape": value.shape, "like": ends}


def _layer(said: dict[str, Any], left: list[int]) -> Layer:
    made: dict[str, Any] = {}
    for name, value in said.items():
        if name == "neuron":
            made[name] = Neuron(**value)
        elif name in TRAINED:
            made[name] = _like(value, left)
        elif name == "delay":
            made[name] = np.array(value, np.int32)
        else:
            made[name] = tuple(value) if isinstance(value, list) else value
    if unknown := set(made) - {field.name for field in fields(Layer)}:
        raise KeyError(f"unknown: {', '.join(sorted(unknown))}")
    return Layer(**made)


def _like(said: dict[str, Any], left: list[int]) -> np.ndarray:
    """An array with the least, the largest and, where there are some, an odd number of another."""
    shape = tuple(map(int, said["shape"]))
    left[0] -= math.prod(shape)
    if min(shape, default=0) < 0 or left[0] < 0:
        raise ValueError(f"more than {LARGEST} values")
    made = np.zeros(math.prod(shape), np.int32)
    made[: len(said["like"])] = said["like"][: len(made)]
    return made.reshape(shape)
