"""Few-shot learning: classes that are known from a handful of images.

>>> from engram.fewshot import enrol
>>> enrol.__module__
'engram.fewshot.enrolling.enrolled'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engram.fewshot.enrolling.enrolled import enrol as enrol

__all__ = ["enrol"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'engram.fewshot' has no attribute {name!r}")
    from engram.fewshot.enrolling.enrolled import enrol

    globals()[name] = enrol
    return enrol
