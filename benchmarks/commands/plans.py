"""What every command that plans trials begins with."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

from engram.backbone.errors import must
from engram.backbone.registry import Registry
from engram.benchmarks.driving.setting import RunSetting
from engram.benchmarks.planning.plan import Planner
from engram.benchmarks.planning.suite import Suite
from engram.benchmarks.records.contents import MEMORY, Contents
from engram.benchmarks.records.identity import DataSets
from engram.benchmarks.records.layout import MODELS
from engram.benchmarks.records.stored import held


def planner_for(registry: Registry, how: RunSetting, *, dry: bool = False) -> Planner:
    """A planner that knows the bytes of the data below the data root; ``dry``: it fetches none, and writes nothing."""
    contents = Contents(how.out / MEMORY)

    def registered(text: str, what: str) -> Path:
        from engram.benchmarks.sink.registered import fetch

        return fetch(text, what, how.out, _aside() if dry else how.out / MODELS, how.tracking_uri)

    sets = DataSets(registry, how.data_root, contents, fetch=how.download and not dry)
    return Planner(registry, how.out, sets, registered)


def _aside() -> Path:
    """A folder that is there as long as this process."""
    made = tempfile.mkdtemp(prefix="engram-models-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def check_name(suite: Suite, folder: Path) -> None:
    """Refuse to edit the plan of another suite: it is the same one when its file or its text is.

    Raises:
        UserError: the folder of the sweep is another suite's.
    """
    before = held(folder / "plan.json")
    made_from = before.get("path", suite.path)  # plans of 0.2.0 and before do not say it
    if made_from != suite.path and before.get("suite") != suite.text:
        rule, got = f"that of one suite here, {made_from}", suite.path
        remedy = f'Give this one another with name = "..." at its top; if it is that suite, moved, delete {folder}.'
        raise must(f"the name {suite.name!r}", rule, got, remedy)
