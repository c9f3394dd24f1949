from __future__ import annotations

import json

from engram.backbone.errors import must


def worst(given):
    folder = given.trial(given.flags.out, given.words[0])
    rows = json.loads((folder / "result.json").read_text())["tables"].get("groups")
    if rows is None:
        raise must("the trial", "one of toy.audit", folder.name, "Make one with: engram run toy.audit --from TRIAL")
    row = min(rows, key=lambda row: row["accuracy"])
    print(f"{row['group']}: {row['accuracy']:.3f}")
    return 0
