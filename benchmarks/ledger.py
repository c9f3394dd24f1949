"""The ledger of a trial: ``metrics.jsonl``, append-only, one JSON object per line.

A process may die at any byte. The next one cuts a torn last line off and goes on; what is there is never written twice.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.records import parse_lines


class Ledger:
    """Appends measurements. Each call is one write, so other processes see whole calls or none."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._repair(path)
        self._known = {(line.name, line.step) for line in parse_lines(path.read_bytes())}

    def _repair(self, path: Path) -> None:
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(self._file, whole)
        os.lseek(self._file, whole, os.SEEK_SET)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append what is new: a resumed trial walks again over steps that it has already logged."""
        now = time.time_ns() // 1_000_000
        lines = []
        for name, value in metrics.items():
            if (name, step) not in self._known:
                self._known.add((name, step))
                lines.append(json.dumps({"t": now, "step": int(step), "name": name, "value": float(value)}) + "\n")
        data = "".join(lines).encode()
        while data:
            data = data[os.write(self._file, data) :]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.fsync(self._file)
        os.close(self._file)
