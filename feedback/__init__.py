"""Recurrent networks: what later stages saw changes what earlier ones compute in the next step.

>>> from engram.feedback import look
>>> look.__module__
'engram.feedback.analysing.looking'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engram.feedback.analysing.looking import look as look

if __name__ == "feedback":  # from the folder above: a process that has it by both names has everything twice
    raise ModuleNotFoundError("feedback is called engram.feedback. Write: import engram.feedback", name=__name__)

__all__ = ["look"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'engram.feedback' has no attribute {name!r}")
    from engram.feedback.analysing.looking import look

    globals()[name] = look
    return look
