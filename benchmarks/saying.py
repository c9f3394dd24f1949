"""What is said to people while a command works."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Print a line on standard error; standard output belongs to results."""
    print(text, file=sys.stderr, flush=True)
