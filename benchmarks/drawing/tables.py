"""Plain tables for terminals and logs."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LEAST = 16  # columns of a text that gives way to others: a trial's id stays whole


def terminal_width(*, errors: bool = False) -> int | None:
    """Columns of the terminal behind standard output (or ``errors``, standard error); None where it is none."""
    stream = sys.stderr if errors else sys.stdout
    if not stream.isatty():
        return None
    return int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size(stream.fileno()).columns


def render(title: str, rows: Sequence[Mapping[str, Any]], width: int | None = None, right: Collection[str] = ()) -> str:
    """Rows as aligned columns under a title; numbers stand to the right, and columns named in ``right`` do.

    Where ``width`` is given and a table is wider, texts go on in further lines, and what is too wide even then in
    further tables that begin with the same column: nothing is cut off.

    >>> print(render("scores", [{"network": "mlp", "accuracy": 0.5}, {"network": "lenet5", "accuracy": 0.98765432}]))
    scores
      network  accuracy
      mlp           0.5
      lenet5     0.9877
    >>> print(render("", [{"trial": "0123", "note": "it was stopped", "score": 0.5}], width=24))
      trial  note      score
      0123   it was      0.5
             stopped
    """
    names = list(dict.fromkeys(key for row in rows for key in row))
    columns = [_Column.of(name, [row.get(name) for row in rows], name in right) for name in names]
    lines = (fold(title, width) if width else [title]) if title else []
    for block in _blocks(columns, width):
        widths = _shrunk(block, width)
        for texts in zip(*([column.name, *column.cells] for column in block), strict=True):
            folded = [fold(text, size) for text, size in zip(texts, widths, strict=True)]
            for parts in itertools.zip_longest(*folded, fillvalue=""):
                padded = (
                    part.rjust(size) if column.numeric else part.ljust(size)
                    for part, size, column in zip(parts, widths, block, strict=True)
                )
                lines.append(("  " + "  ".join(padded)).rstrip())
    return "\n".join(lines)


@dataclass(frozen=True)
class _Column:
    name: str
    cells: Sequence[str]
    numeric: bool

    @classmethod
    def of(cls, name: str, values: Sequence[Any], right: bool) -> _Column:
        return cls(name, [cell(value) for value in values], right or all(map(_is_number, values)))

    @property
    def size(self) -> int:
        return max(map(len, (self.name, *self.cells)))

    @property
    def readable(self) -> int:
        """The width at which no word, and no number, is broken in two."""
        texts = [self.name, *([] if self.numeric else self.cells)]
        parts = (len(part) for text in texts for part in _parts(text))
        return max([*parts, *(map(len, self.cells) if self.numeric else ())], default=0)

    @property
    def least(self) -> int:
        return self.readable if self.numeric else min(self.readable, _LEAST)


def _blocks(columns: Sequence[_Column], width: int | None) -> Iterator[Sequence[_Column]]:
    """The columns that are printed side by side; all of them where that is possible."""
    block: list[_Column] = []
    for column in columns:
        if width is not None and len(block) > 1 and _total([each.least for each in (*block, column)]) > width:
            yield block
            block = [columns[0]]
        block.append(column)
    if block:
        yield block


def _shrunk(columns: Sequence[_Column], width: int | None) -> list[int]:
    """The widths of columns that fit: the widest give way first, and words are broken last."""
    sizes = [column.size for column in columns]
    if width is None:
        return sizes
    for floor in ([column.readable for column in columns], [column.least for column in columns]):
        while _total(sizes) > width:
            over = [index for index, size in enumerate(sizes) if size > floor[index]]
            if not over:
                break
            sizes[max(over, key=lambda index: sizes[index])] -= 1
    return sizes


def _total(sizes: Sequence[int]) -> int:
    return sum(2 + size for size in sizes)


def fold(text: str, width: int) -> list[str]:
    """A text in lines of at most ``width``; words are broken at signs within them, or where there is none, anywhere.

    >>> fold("strategies=er,derpp seed 1", 14), fold("0123456789", 4), fold("", 4)
    (['strategies=er,', 'derpp seed 1'], ['0123', '4567', '89'], [''])
    """
    lines = [""]
    for wordy in re.findall(r"\s*\S+\s*", text):
        fits = len(lines[-1]) + len(wordy.rstrip()) <= width
        for part in [wordy] if fits or len(wordy.rstrip()) <= width else _parts(wordy):
            if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
                lines.append("")
            while len(part.rstrip()) > width:
                lines[-1:] = [part[:width], ""]
                part = part[width:]
            lines[-1] += part
    return [line.rstrip() for line in lines]


def _parts(text: str) -> list[str]:
    """Where a line may end: after spaces, and after signs that join words."""
    return [part for part in re.split(r"(?<=[\s_/,=:-])(?![\s_/,=:-])", text) if part]


def cell(value: Any) -> str:
    """One value in few characters.

    >>> cell(0.123456), cell(123456.7), cell(None), cell(True)
    ('0.1235', '123456.7', '-', 'yes')
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.1f}"
    return word(value)


def word(value: Any) -> str:
    """A value as one writes it on the command line.

    >>> word(["si", "er"]), word(0.1)
    ('si,er', '0.1')
    """
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def typed(options: Mapping[str, Any]) -> list[str]:
    """Options by the names of their flags as words of a command line; those that are None are left out.

    >>> typed({"lr": 0.1, "backbone.width": None, "normalise": False, "strategies.er.copies": True})
    ['--lr', '0.1', '--no-normalise', '--strategies.er.copies']
    """
    words = []
    for name, value in options.items():
        if value is not None:
            words += [f"--{'' if value else 'no-'}{name}"] if isinstance(value, bool) else [f"--{name}", word(value)]
    return words


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
