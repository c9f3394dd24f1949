"""An experimentation suite for brain-inspired vision networks: one backbone, plugins beside it, one runner.

Importing it costs nothing: whatever a name needs is imported when the name is first used.

>>> import engram
>>> engram.convert.__module__
'engram.face.converting'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engram.backbone.errors import TrialError as TrialError
    from engram.backbone.errors import UserError as UserError
    from engram.face.comparing import compare as compare
    from engram.face.converting import convert as convert
    from engram.face.deploying import deploy as deploy
    from engram.face.loading import load as load
    from engram.face.running import run as run
    from engram.face.running import sweep as sweep
    from engram.face.running import train as train

_WHERE = {
    "TrialError": "engram.backbone.errors",
    "UserError": "engram.backbone.errors",
    "compare": "engram.face.comparing",
    "convert": "engram.face.converting",
    "deploy": "engram.face.deploying",
    "load": "engram.face.loading",
    "run": "engram.face.running",
    "sweep": "engram.face.running",
    "train": "engram.face.running",
}

__all__ = ["TrialError", "UserError", "compare", "convert", "deploy", "load", "run", "sweep", "train"]


def __getattr__(name: str) -> Any:
    from importlib import import_module
    from importlib.util import find_spec

    if name not in _WHERE:
        if name.startswith("_") or find_spec(f"engram.{name}") is None:
            raise AttributeError(f"module 'engram' has no attribute {name!r}")
        return import_module(f"engram.{name}")  # a package of ours: engram.fewshot.enrol
    found = globals()[name] = getattr(import_module(_WHERE[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
