"""``engram list``: what the installed plugins offer."""

from __future__ import annotations

import json
import sys

from engram.backbone.contract import KINDS, Kind
from engram.backbone.errors import UserError, nearest
from engram.benchmarks.commands.flags import Showing
from engram.benchmarks.drawing.tables import fold, terminal_width
from engram.benchmarks.given import Given


def show(given: Given[Showing]) -> int:
    """Print all kinds, or the one that is named."""
    words = given.words
    kinds: list[Kind] = [kind for kind in KINDS if not words or words[0] == kind]
    if not kinds:
        raise UserError(f"KIND must be one of {', '.join(KINDS)}; got {words[0]}. {nearest(words[0], KINDS)}")
    registry = given.registry
    offered = {
        kind: [
            {"name": thing + (":PATH" if entry.takes_path else ""), "plugin": plugin, "summary": entry.summary}
            for plugin, thing, entry in registry.choices(kind)
        ]
        for kind in kinds
    }
    if given.flags.json:
        print(json.dumps({**offered, "broken": dict(registry.broken)}))
        return 0
    indent = max((len(row["name"]) for rows in offered.values() for row in rows), default=0) + 4
    room = max((terminal_width() or sys.maxsize) - indent, 20)
    for kind, rows in offered.items():
        if rows:
            print(kind)
        for row in rows:
            first, *more = fold(row["summary"], room)
            print(f"{'  ' + row['name']:<{indent}}{first}", *(" " * indent + line for line in more), sep="\n")
    for plugin, why in registry.broken.items():
        print(f"unavailable: plugin {plugin}: {why}")
    return 0
