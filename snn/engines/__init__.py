"""What runs a layer's neurons over time; all give the same spikes for the same parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec

from torch import Tensor

from engram.backbone.errors import must
from engram.snn.neurons.firing import Params, State
from engram.snn.neurons.options import Engine

Scan = Callable[[Tensor, State | None, Params], tuple[Tensor, State]]
"""``scan(drive [T, B, C, ...], state or None, params) -> (spikes [T, B, C, ...], state)``."""

_MODULES: Mapping[Engine, str] = {
    "fused": "engram.snn.engines.fused",
    "snntorch": "engram.snn.engines.snntorch",
    "norse": "engram.snn.engines.norse",
}


def engine(name: Engine) -> Scan:
    """The engine of that name, its packages imported only now.

    Raises:
        UserError: the package it needs is not installed.
    """
    if name != "fused" and find_spec(name) is None:
        raise must(f"engine {name}", "installed", f"no package {name!r}", f"Run: pip install {name}; or engine fused")
    return import_module(_MODULES[name]).scan
