"""What can be said of a plugin without running anything: where its entries lead, and what they import on the way."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path

from engram.backbone.contract import (
    ABILITIES,
    KINDS,
    Check,
    Command,
    Entry,
    ExperimentConfig,
    Flags,
    Metric,
    Places,
    Plugin,
)
from engram.backbone.errors import UserError
from engram.backbone.options.inherited import made_from
from engram.backbone.registry import Registry, resolve
from engram.backbone.testing.case import require

HEAVY = ("torch", "mlflow")
_IMPORTS = """
import sys
from engram.backbone.registry import resolve
for where in {where!r}:
    resolve(where)
    found = set({heavy!r}) & set(sys.modules)
    if found:
        sys.exit(f"{{where}} imports {{' and '.join(sorted(found))}}")
"""


def check_light(plugin: Plugin) -> None:
    """Options, looks at files, commands and rows of doctor are imported without torch, so that help is instant."""
    entries = [entry for kind in KINDS for entry in getattr(plugin, kind).values()]
    where = [each for entry in entries for each in (entry.options, entry.check, entry.files) if each]
    where += [each for command in plugin.commands.values() for each in (command.handler, command.flags) if each]
    where += [*plugin.checks.values(), *plugin.installs.values()]
    code = _IMPORTS.format(where=list(dict.fromkeys(where)), heavy=HEAVY)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    require(done.returncode == 0, (done.stderr.strip().splitlines() or ["nothing was said"])[-1])


def check_entry(entry: Entry) -> None:
    """It leads somewhere, and says what it is."""
    for where in (entry.target, entry.check, entry.files, entry.known):
        require(where is None or callable(resolve(where)), f"{where} must be something that can be called")
    require(entry.summary, "an entry has a summary")
    require(entry.options is None or is_dataclass(resolve(entry.options)), "options are a dataclass")
    unknown = [name for name in (*entry.needs, *(entry.offers or ())) if name not in ABILITIES]
    require(not unknown, f"needs and offers are names of protocols; got {', '.join(unknown)}")


def check_declared(config: type[ExperimentConfig]) -> None:
    """What an experiment declares of its metrics."""
    primary = [metric for metric in config.metrics if metric.primary]
    rule = "one metric is primary, or several of which a trial reports one"
    require(len(primary) == 1 or (primary and all(metric.optional for metric in primary)), rule)
    require(len(set(map(_name, config.metrics))) == len(config.metrics), "metrics have different names")


def _name(metric: Metric) -> str:
    return metric.name


def check_command(command: Command) -> None:
    """Its flags and its handler exist, and an error of the runner's comes through as the one line that it is.

    One that runs an experiment has a word for the trial that the experiment is made from, and no handler.
    """
    if command.runs:
        config = Registry.discover().options("experiments", command.runs)
        options = [option.key for option, _ in made_from(config or object)]
        require("from" in options and command.words == "TRIAL", "a command that runs an experiment takes its --from")
        require(not command.handler, "a command that runs an experiment has no handler")
        return
    require(issubclass(resolve(command.flags), Flags), "flags are a subclass of engram.backbone.contract.Flags")
    handler = resolve(command.handler)
    require(callable(handler), "a handler is a function of what was given")
    if command.words.partition(" ")[0] != "TRIAL":
        return
    try:
        handler(_Nowhere(resolve(command.flags)()))
    except UserError as error:
        require(str(error) == _NOWHERE, f"what given.trial says is what the user sees; got {error}")
    else:
        raise AssertionError("a command whose first word is TRIAL asks given.trial for it")


_NOWHERE = "trial must be one that exists; got nowhere. See: engram status"


class _Nowhere:
    """A command as it was given, with a trial that does not exist."""

    def __init__(self, flags: Flags) -> None:
        self.argv: Sequence[str] = ("command", "nowhere")
        self.words: Sequence[str] = ("nowhere",)
        self.flags, self.config = flags, None

    def trial(self, out: Path, name: str) -> Path:
        raise UserError(_NOWHERE)


def check_doctor(where: str) -> None:
    """A check of ``engram doctor`` yields rows, in folders with nothing in them too."""
    with tempfile.TemporaryDirectory() as empty:
        rows = list(resolve(where)(Places(out=Path(empty) / "runs", data=Path(empty) / "data")))
    for row in rows:
        require(isinstance(row, Check) and row.state in ("ok", "note", "bad"), "a row of doctor is a Check")
        require(row.state != "bad" or row.remedy, f"{row.name}: what is bad has a remedy")
        require("\n" not in row.found + row.remedy, f"{row.name}: what was found is one line")
