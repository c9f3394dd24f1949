"""What trials have in common that differ in their seeds alone: found out for one of them, it holds for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from engram.backbone.contract import ExperimentConfig

T = TypeVar("T")
_MOST = 100
"""Answers that are held: a plan has the seeds of a cell one after the other."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A trial that another one is made from. ``config`` is what its network was trained with, plain.

    ``content`` is what it holds; None for one that is planned beside it and yet to be done.
    """

    id: str
    folder: Path
    experiment: str
    config: Mapping[str, Any]
    data: Mapping[str, str | None]
    content: str | None


@dataclass(frozen=True, kw_only=True)
class Common:
    """What trials have in common that differ in their seeds alone.

    ``moved`` are the data sets, by field, that are known by another name than was given; ``options`` and ``more`` are
    of `trial_id`, ``values`` all of the configuration; ``requires``: whether other trials come first.
    """

    moved: Mapping[str, str]
    data: Mapping[str, str | None]
    values: Mapping[str, Any]
    options: Mapping[str, Any]
    more: Mapping[str, Mapping[str, Any]]
    requires: bool


def seedless(config: ExperimentConfig, given: Mapping[str, Any], origins: Mapping[str, Origin]) -> str:
    """What is equal for trials that differ in their seeds alone."""
    values = {**vars(config), "seed": None}
    made_from = [(role, origin.id, origin.content) for role, origin in origins.items()]
    return repr((type(config), values, list(given), made_from))


class Alike(Generic[T]):
    """Answers by `seedless`, the last ones of them."""

    def __init__(self) -> None:
        self._held: dict[str, T] = {}

    def get(self, key: str, work: Callable[[], T]) -> T:
        """The answer that was given before, or else that of ``work``."""
        if key not in self._held:
            if len(self._held) == _MOST:
                self._held.clear()
            self._held[key] = work()
        return self._held[key]
