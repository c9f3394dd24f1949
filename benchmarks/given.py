"""A command as it was given: `engram.backbone.contract.Invocation`, as the runner makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from engram.backbone.contract import Finished, Flags
from engram.backbone.registry import Registry

F = TypeVar("F", bound=Flags, covariant=True)


@dataclass(frozen=True)
class Given(Generic[F]):
    """A command with its checked flags, and the registry, found by ``discover`` only when a command asks for it."""

    argv: Sequence[str]
    words: Sequence[str]
    flags: F
    options: Mapping[str, Any] | None
    discover: Callable[[], Registry]

    @property
    def registry(self) -> Registry:
        return self.discover()

    def trial(self, out: Path, name: str) -> Path:
        from engram.benchmarks.records.trials import find_trial

        return find_trial(out, name, "TRIAL")[1]

    def sweep(self, out: Path, name: str) -> Sequence[Finished | None]:
        from engram.benchmarks.records.trials import read_sweep

        return [record.finished for record in read_sweep(out, name).records]
