from __future__ import annotations

import json

from engram.backbone.errors import TrialError


def tally(given):
    folder = given.trial(given.flags.out, given.words[0])
    total = json.loads((folder / "result.json").read_text())["metrics"]["total"]
    if total < given.flags.by:
        raise TrialError(f"the count must be {given.flags.by} at least; got {total}. Count further.")
    steps = range(given.flags.by, int(total) + 1, given.flags.by)
    print(f"{given.words[1] if len(given.words) > 1 else given.flags.what}:", *steps)
    return 0
