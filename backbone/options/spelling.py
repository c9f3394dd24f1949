"""One spelling for the name of an option: ``batch-size``, ``dataset.size``, as its flag has it without the dashes.

Tables, errors, reports and MLflow write it; whatever reads a name takes the others too: ``batch_size``,
``--batch-size``, ``dataset_options.size`` and tables within tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

_LEAVES = {str, int, float, bool, type(None), list, tuple}
"""Types of which it is known, without asking, that they are no mappings: thousands of trials have fifty values each."""


@lru_cache(maxsize=10_000)
def spell(name: str) -> str:
    """The one spelling of an option's name.

    >>> spell("batch_size"), spell("--batch-size"), spell("strategies_options.er.replay_batch")
    ('batch-size', 'batch-size', 'strategies.er.replay-batch')
    """
    head, dot, tail = name.lstrip("-").replace("_", "-").partition(".")
    return head.removesuffix("-options") + dot + tail if dot else head


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as one, keys joined by dots.

    >>> list(leaves({"a": 1, "b": {"c": 2}, "d": {}}))
    [('a', 1), ('b.c', 2)]
    """
    for key, value in values.items():
        if type(value) not in _LEAVES and isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    return dict(leaves(values))


def by_flag(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration by the names its flags have.

    >>> by_flag({"batch_size": 8, "backbone_options": {"width": 2.0}})
    {'batch-size': 8, 'backbone.width': 2.0}
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        if type(value) not in _LEAVES and isinstance(value, Mapping):
            found |= {spell(inside): each for inside, each in leaves(value, f"{key}.")}
        else:
            found[spell(key)] = value
    return found


def twice(values: Mapping[str, Any]) -> list[str]:
    """The problems of names that stand there in two spellings, which `by_flag` would make one.

    >>> twice({"batch_size": 8, "batch-size": 9})
    ['batch-size must be given once; got batch_size and batch-size. Drop one of the two.']
    """
    written: dict[str, list[str]] = {}
    for key, _ in leaves(values):
        written.setdefault(spell(key), []).append(key)
    return [
        f"{name} must be given once; got {' and '.join(keys)}. Drop one of the two."
        for name, keys in written.items()
        if len(keys) > 1
    ]
