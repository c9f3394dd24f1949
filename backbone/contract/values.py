"""Words that all contracts share."""

from __future__ import annotations

from collections.abc import Mapping

Scalar = str | int | float | bool | None
Row = Mapping[str, Scalar]
