"""The ledger of a trial: ``metrics.jsonl``, append-only, one JSON object per line.

A process may die at any byte. The next one cuts a torn last line off and goes on; what is there is never written twice.
Lines that were damaged since are dropped, and whoever logs them again completes it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from engram.backbone.atomic import write_atomically
from engram.benchmarks.records.lines import Line, encoded, read_ledger


class Ledger:
    """Appends measurements. Each call is one write, so other processes see whole calls or none.

    ``count`` is how many lines it has.
    """

    def __init__(self, path: Path) -> None:
        found = read_ledger(path)
        if found.lost:
            write_atomically(path, b"".join(encoded(line, n) for n, line in enumerate(found.lines)))
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._cut_torn_end(path)
        self._known = {(line.name, line.step) for line in found.lines}
        self.count = len(found.lines)

    def _cut_torn_end(self, path: Path) -> None:
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(self._file, whole)
        os.lseek(self._file, whole, os.SEEK_SET)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append what is new: a resumed trial walks again over steps that it has already logged."""
        now = time.time_ns() // 1_000_000
        data = b""
        for name, value in metrics.items():
            if (name, step) not in self._known:
                self._known.add((name, step))
                data += encoded(Line(now, int(step), name, float(value)), self.count)
                self.count += 1
        while data:
            data = data[os.write(self._file, data) :]

    def keep(self) -> None:
        """Have all of it on the disk: a checkpoint that outlives a power cut must not know more than its ledger."""
        os.fsync(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.keep()
        finally:
            os.close(self._file)
