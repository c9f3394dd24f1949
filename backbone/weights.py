"""Weights from a file of the user's own, ``--weights FILE``; no torch here."""

from __future__ import annotations

from typing import Any

from engram.backbone.given_files import GivenFiles

WEIGHTS = GivenFiles("--weights", "ENGRAM_WEIGHTS")


class WeightsFile:
    """Marks an option that holds a file of weights; its value becomes ``FILE@HASH``."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(WEIGHTS.known_as, handler(source))
