"""What a running trial has measured since one last looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engram.benchmarks.records.inside import open_inside
from engram.benchmarks.records.lines import LEDGER, Line, parse_lines


@dataclass
class Tail:
    """The end of a trial's ledger: every line is read once."""

    folder: Path
    _read: int = 0

    def new(self) -> Sequence[Line]:
        """The whole lines that were appended since the last call; all of them where the ledger was written anew."""
        try:
            with open_inside(self.folder, LEDGER) as file:
                size = file.seek(0, 2)
                if size < self._read:
                    self._read = 0
                file.seek(self._read)
                raw = file.read(size - self._read)
        except OSError:
            return []
        whole = raw.rfind(b"\n") + 1
        self._read += whole
        return list(parse_lines(raw[:whole]))
