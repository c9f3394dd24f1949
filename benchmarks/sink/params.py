"""The options of a trial as MLflow's params: all of them, for who looks there does not know our defaults."""

from __future__ import annotations

import hashlib

from engram.benchmarks.planning.naming import spelled
from engram.benchmarks.records.trials import Record

LONGEST = 6000  # characters of a value that MLflow takes


def params_of(record: Record) -> dict[str, str]:
    """The trial's experiment and every option, defaults included, as one writes them on the command line."""
    options = {name: spelled(value) for name, value in record.config.items()}
    return {name: within(clean(text)) for name, text in {"experiment": record.experiment, **options}.items()}


def within(text: str, longest: int = LONGEST) -> str:
    """The text, or its beginning and a hash of all of it, so that two values never become one.

    >>> within("mlp"), len(within("1," * 9000)), within("1," * 9000)[-8:]
    ('mlp', 6000, '-217494d')
    """
    if len(text) <= longest:
        return text
    mark = f"...-{hashlib.sha256(text.encode()).hexdigest()[:7]}"
    return text[: longest - len(mark)] + mark


def clean(text: str) -> str:
    r"""A text that every database takes: a zero byte, or one that is no UTF-8 in the name of a file, is spelled.

    >>> clean("a\0b"), clean("caf\udce9")
    ('a\\x00b', 'caf\\udce9')
    """
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
