"""Weights from a file of the user's own, ``--weights FILE``: known by the file's bytes wherever it lies; no torch here.

What was made from it knows it as ``FILE@HASH``; where it lies stands in `VARIABLE`, which workers inherit.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from engram.backbone.errors import must

VARIABLE = "ENGRAM_WEIGHTS"
"""Environment variable that names files, several with semicolons between them."""
_KNOWN = re.compile(r"[^/\\]+@[0-9a-f]{16}")


class WeightsFile:
    """Marks an option that holds a file of weights; its value becomes ``FILE@HASH``."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(known_as, handler(source))


def known_as(text: str) -> str:
    """The name of a file by what is in it, wherever it lies; such a name itself as it is.

    Raises:
        UserError: it cannot be read.
    """
    if _KNOWN.fullmatch(text):
        return text
    path = Path(text).expanduser().absolute()
    name = _name(path)
    if str(path) not in (words := _given()):
        os.environ[VARIABLE] = ";".join([*words, str(path)])
    return name


def find(name: str) -> Path:
    """The file that `known_as` gave this name.

    Raises:
        UserError: it was not given, or has other bytes now.
    """
    wanted = name.rpartition("@")[0]
    for path in map(Path, _given()):
        if path.name == wanted and _name(path) == name:
            return path
    raise must("--weights", f"given as it was planned ({name})", "none that is", f"Set {VARIABLE}=PATH/{wanted}.")


def _given() -> list[str]:
    return [word for word in os.environ.get(VARIABLE, "").split(";") if word]


def _name(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return f"{path.name}@{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
    except OSError as error:
        raise must("--weights", "a file that can be read", f"{path} ({error.strerror})", "Check the path.") from None
