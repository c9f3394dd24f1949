"""The options of a trial as MLflow's params: all of them, for who looks there does not know our defaults."""

from __future__ import annotations

import hashlib

from benchmarks.naming import spelled
from benchmarks.records import Record

LONGEST = 6000  # characters of a value that MLflow takes


def params_of(record: Record) -> dict[str, str]:
    """The trial's experiment and every option, defaults included, as one writes them on the command line."""
    options = {name: spelled(value) for name, value in record.config.items()}
    return {name: within(text) for name, text in {"experiment": record.experiment, **options}.items()}


def within(text: str) -> str:
    """The text, or its beginning and a hash of all of it, so that two values never become one.

    >>> within("mlp"), len(within("1," * 9000)), within("1," * 9000)[-8:]
    ('mlp', 6000, '-217494d')
    """
    if len(text) <= LONGEST:
        return text
    mark = f"...-{hashlib.sha256(text.encode()).hexdigest()[:7]}"
    return text[: LONGEST - len(mark)] + mark
