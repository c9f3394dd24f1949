"""Interventions, invariance, and data whose causes are known.

>>> from engram.causal import do
>>> do.__module__
'engram.causal.intervening.doing'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engram.causal.intervening.collecting import collected as collected
    from engram.causal.intervening.doing import do as do

if __name__ == "causal":  # from the folder above: a process that has it by both names has everything twice
    raise ModuleNotFoundError("causal is called engram.causal. Write: import engram.causal", name=__name__)

_WHERE = {"collected": "engram.causal.intervening.collecting", "do": "engram.causal.intervening.doing"}

__all__ = ["collected", "do"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'engram.causal' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_WHERE[name]), name)
    return found
