"""``engram clean``: remove what nobody needs any more."""

from __future__ import annotations

import json

from engram.benchmarks.commands.flags import Cleaning
from engram.benchmarks.drawing.tables import render, terminal_width
from engram.benchmarks.given import Given
from engram.benchmarks.records.quantities import size
from engram.benchmarks.records.waste import Waste, find_waste
from engram.benchmarks.saying import say


def clean(given: Given[Cleaning]) -> int:
    """List what may be removed, and remove it with ``--yes``; 1 where something could not be removed."""
    flags = given.flags
    found = [(waste, waste.size) for waste in find_waste(flags.out)]
    kept: dict[Waste, str] = {}
    for waste, _ in found if flags.yes else ():
        try:
            if not waste.remove():
                kept[waste] = "its trial runs"
        except OSError as error:
            kept[waste] = error.strerror or str(error)
            say(f"engram: {waste.path} could not be removed: {error.strerror}")
    rows = [{"path": str(waste.path), "bytes": bytes, "why": waste.why} for waste, bytes in found]
    total = sum(bytes for waste, bytes in found if waste not in kept)
    if flags.json:
        print(json.dumps({"waste": rows, "removed": flags.yes, "bytes": total, "kept": len(kept)}))
    elif not found:
        print(f"nothing to remove in {flags.out}")
    else:
        shown = [{"size": size(row["bytes"]), "why": row["why"], "path": row["path"]} for row in rows]
        print(render("removed" if flags.yes else "to remove", shown, terminal_width()))
        say(f"{size(total)} removed" if flags.yes else f"{size(total)} in all; --yes removes them")
    return 1 if any(why != "its trial runs" for why in kept.values()) else 0
