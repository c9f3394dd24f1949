"""One group of a ``.net`` file, asked for its values by name; every answer is checked; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engram.backbone.errors import UserError, must

REMEDY = "Export it again with lava-dl's export_hdf5, or use another file."


@dataclass(frozen=True)
class Fields:
    """A group of the file.

    Attributes:
        values: what it holds (`engram.backbone.hdf5.reading.Tree`).
        place: what errors call it: the file and the path in it.
    """

    values: Mapping[str, Any]
    place: str

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def wrong(self, name: str, rule: str, got: object) -> UserError:
        """The error for a value of this group."""
        return must(f"{self.place}/{name}", rule, got, REMEDY)

    def group(self, name: str) -> Fields:
        """A group in this one.

        Raises:
            UserError: there is none of that name.
        """
        found = self.values.get(name)
        if not isinstance(found, dict):
            raise self.wrong(name, "a group", "nothing" if found is None else "values")
        return Fields(found, f"{self.place}/{name}")

    def text(self, name: str) -> str:
        """A text, alone or as an array of one.

        Raises:
            UserError: there is none, or it is no text.
        """
        found = self.values.get(name)
        if isinstance(found, np.ndarray) and found.dtype == object and found.size == 1:
            found = found.item()
        if not isinstance(found, str):
            raise self.wrong(name, "one text", _shown(found))
        return found

    def number(self, name: str, least: float, most: float, default: float | None = None) -> int:
        """A whole number, alone or as an array of one.

        Raises:
            UserError: it is none, is outside of ``least`` to ``most``, or is missing and there is no default.
        """
        if name not in self and default is not None:
            return int(default)
        found = self.whole(name, least, most)
        if found.size != 1:
            raise self.wrong(name, "one number", f"an array of shape {list(found.shape)}")
        return int(found.item())

    def real(self, name: str, default: float) -> float:
        """A finite number, alone or as an array of one.

        Raises:
            UserError: it is none.
        """
        if name not in self:
            return default
        found = self.values[name]
        if not isinstance(found, np.ndarray) or found.size != 1 or found.dtype == object:
            raise self.wrong(name, "one number", _shown(found))
        if not np.isfinite(found).all():
            raise self.wrong(name, "finite", found.item())
        return float(found.item())

    def flag(self, name: str) -> bool:
        """Whether a switch is on; one that is missing is off."""
        return bool(self.number(name, 0, 1, 0))

    def pair(self, name: str, least: int, most: int, default: int | None = None) -> tuple[int, int]:
        """(y, x): two numbers, or one for both.

        Raises:
            UserError: as `number`.
        """
        if name not in self and default is not None:
            return default, default
        found = self.whole(name, least, most).reshape(-1).tolist()
        if len(found) not in (1, 2):
            raise self.wrong(name, "one number or two (y, x)", f"{len(found)} numbers")
        return found[0], found[-1]

    def shape(self) -> tuple[int, ...]:
        """The layer's shape, (C, H, W) or fewer.

        Raises:
            UserError: it is missing, or not 1 to 3 sizes.
        """
        found = self.whole("shape", 1, 1 << 24).reshape(-1).tolist()
        if not 1 <= len(found) <= 3:
            raise self.wrong("shape", "1 to 3 sizes", f"{len(found)}")
        return tuple(found)

    def whole(self, name: str, least: float, most: float) -> np.ndarray:
        """Whole numbers, int32 of any shape.

        Raises:
            UserError: there are none, or one is not whole or outside of ``least`` to ``most``.
        """
        found = self.values.get(name)
        if not isinstance(found, np.ndarray) or found.dtype == object:
            raise self.wrong(name, "whole numbers", _shown(found))
        exact = found.astype(np.float64)
        bad = ~((exact == np.round(exact)) & (exact >= least) & (exact <= most))
        if bad.any():
            raise self.wrong(name, f"whole numbers from {least} to {most}", exact[bad].flat[0])
        return exact.astype(np.int32)


def _shown(found: object) -> str:
    if found is None:
        return "nothing"
    return repr(found)[:40] if isinstance(found, str) else "a group" if isinstance(found, dict) else "an array"
