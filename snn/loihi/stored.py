"""A network of chip integers as one file, for processes that have numpy alone (`lava/worker.py`) and for artifacts.

An ``.npz`` without pickles: ``header``, uint8, is JSON with everything but arrays, and stands where an array stood as
``{"array": KEY}``; the arrays are beside it under these keys.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter
from torch import Tensor

from engram.backbone.atomic import write_atomically
from engram.backbone.errors import must
from engram.snn.loihi.network import LIF, ChipNetwork, Input, Integrator, Population, SigmaDelta, Synapses

FORMAT = 1
T = TypeVar("T")
_NEURONS: Mapping[str, type] = {"lif": LIF, "sigma-delta": SigmaDelta, "integrator": Integrator}


def save(network: ChipNetwork, path: Path) -> None:
    """Write a network to a file; the same network gives the same bytes."""
    arrays: dict[str, np.ndarray] = {}
    header = {"format": FORMAT, **_plain(network, arrays, "")}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    held = io.BytesIO()
    np.savez_compressed(held, **arrays)  # type: ignore[arg-type]
    write_atomically(path, held.getvalue())


def load(path: Path) -> ChipNetwork:
    """Read what `save` wrote.

    Raises:
        UserError: it is no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
        header = json.loads(arrays.pop("header").tobytes())
        if header.pop("format") != FORMAT:
            raise ValueError("another format")
        return _network(header, {name: torch.from_numpy(array) for name, array in arrays.items()})
    except Exception as error:  # whatever a stranger's file holds
        got = f"{type(error).__name__}: {error}".splitlines()[0]
        raise must(f"{path}", "a network of chip integers", got, "Deploy the trial again.") from error


def _plain(value: Any, arrays: dict[str, np.ndarray], key: str) -> Any:
    if isinstance(value, Tensor):
        arrays[key] = value.cpu().numpy()
        return {"array": key}
    if is_dataclass(value) and not isinstance(value, type):
        kind = next((name for name, each in _NEURONS.items() if type(value) is each), None)
        found = {one.name: _plain(getattr(value, one.name), arrays, f"{key}.{one.name}") for one in fields(value)}
        return found if kind is None else {"kind": kind, **found}
    if isinstance(value, tuple | list):
        return [_plain(each, arrays, f"{key}.{place}") for place, each in enumerate(value)]
    return value


def _network(header: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> ChipNetwork:
    def made(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(made(each) for each in value)
        if isinstance(value, dict) and set(value) == {"array"}:
            return arrays[value["array"]]
        return value

    def of(kind: type[T], saved: Mapping[str, Any], **inner: Any) -> T:
        values = {name: made(value) for name, value in saved.items() if name not in inner}
        checks = _checks(kind)
        return kind(**{name: checks[name].validate_python(value) for name, value in values.items()}, **inner)

    def population(saved: Mapping[str, Any]) -> Population:
        neurons = dict(saved["neurons"])
        cells = of(_NEURONS[neurons.pop("kind")], neurons)
        synapses = tuple(of(Synapses, one) for one in saved["synapses"])
        return of(Population, saved, neurons=cells, synapses=synapses)

    populations = tuple(map(population, header["populations"]))
    return of(ChipNetwork, header, input=of(Input, header["input"]), populations=populations)


@cache
def _checks(kind: type) -> Mapping[str, TypeAdapter[Any]]:
    """What checks the value of each field of a dataclass."""
    config = ConfigDict(arbitrary_types_allowed=True, strict=True)
    inner = ("input", "populations", "neurons", "synapses")
    hints = get_type_hints(kind)
    return {name: TypeAdapter(hint, config=config) for name, hint in hints.items() if name not in inner}
