"""Whether a head keeps a classifier of labelled images; no torch here."""

from __future__ import annotations

from engram.backbone.contract import Entry
from engram.backbone.errors import must
from engram.backbone.registry import Registry


def without_classifier(flag: str, head: str | None) -> list[str]:
    """The problem, if any, that the head an option names makes no classifier of labelled images; None: another's."""
    registry = Registry.discover()
    if head is None or _keeps_one(registry.entry("heads", head)):
        return []
    fits = [name for _, name, each in registry.choices("heads") if each.support and _keeps_one(each)]
    rule = "one that makes a classifier of labelled images"
    return [str(must(flag, rule, head, f"Use {', '.join(fits)}."))]


def _keeps_one(entry: Entry) -> bool:
    return entry.fixed and not entry.transductive
