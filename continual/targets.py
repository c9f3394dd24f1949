"""Published figures this package is held to: ``engram reproduce continual/...``."""

from __future__ import annotations

from backbone.contract import Target

TARGETS: tuple[Target, ...] = ()
