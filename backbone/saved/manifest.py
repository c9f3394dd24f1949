"""What a ``model.json`` says, checked before a network is built from it: a stranger's may ask for any size."""

from __future__ import annotations

import json
import math
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from pydantic import PositiveInt, TypeAdapter, ValidationError
from torch.utils._python_dispatch import TorchDispatchMode

MANIFOLD = 8
"""Times as many values as it saved a network may need while it is built: adapters begin with an analog one."""
LEAST = 2**27
"""Values that any network may need, half a GB of them."""
_MAKERS = {"empty", "empty_strided", "zeros", "ones", "full", "rand", "randn"}
_MAKERS |= {f"new_{name}" for name in _MAKERS}


@dataclass
class _Named:
    name: str
    options: dict[str, Any]


@dataclass
class _Manifest:
    """What must be there, and of which type is what may be."""

    backbone: str
    backbone_options: dict[str, Any]
    in_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    classes: list[str]
    sha256: str
    adapters: list[_Named] = field(default_factory=list)
    dataset: str = ""
    dataset_options: dict[str, Any] = field(default_factory=dict)
    validation: float = 0.0
    data_sha256: str = ""
    meanings: list[list[str]] = field(default_factory=list)
    view: _Named | None = None
    cautions: list[str] = field(default_factory=list)
    incomplete: str = ""


_SHAPE = TypeAdapter(_Manifest)


def read_manifest(raw: bytes) -> dict[str, Any]:
    """The entries of a manifest.

    Raises:
        ValueError: it is none.
    """
    try:
        _SHAPE.validate_json(raw, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"model.json with another {where or 'shape'} ({first['msg']})") from None
    return json.loads(raw)


def bounded(saved: int) -> AbstractContextManager[object]:
    """Let code make no more tensors than a network of so many saved values needs.

    Raises:
        ValueError: in the context, where more are asked for; before there is memory for them.
    """
    return _Bounded(max(LEAST, MANIFOLD * saved))


class _Bounded(TorchDispatchMode):
    def __init__(self, values: int) -> None:
        super().__init__()
        self.values, self.made = values, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func.name().partition("::")[2].partition(".")[0] in _MAKERS:
            self.made += math.prod(next((arg for arg in args if isinstance(arg, list | tuple)), ()))
            if self.made > self.values:
                raise ValueError(f"a network of {self.made} values or more, for weights that are far fewer")
        return func(*args, **(kwargs or {}))
