"""The user's cache: what is made once and kept for all processes; no torch here."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def user_cache(what: str) -> Path:
    """Where things of a kind are kept for all processes of a user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "engram" / what


def kept_in(what: str) -> Path | None:
    """That folder, made where it is not there; None where it cannot be written."""
    folder = user_cache(what)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None
