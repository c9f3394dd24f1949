"""``engram --help``: every command that there is, those of plugins included."""

from __future__ import annotations

from engram.backbone.contract import Command, Flags
from engram.benchmarks.given import Given


def show(given: Given[Flags]) -> int:
    """Print one line for each command."""
    commands = given.registry.commands().items()
    shown = {synopsis(name, command): command.summary for name, command in commands if command.summary}
    width = max(map(len, shown))
    print(
        "engram: an experimentation suite for brain-inspired vision networks",
        "",
        "usage: engram COMMAND ...; engram COMMAND --help and engram run EXPERIMENT --help say more",
        "",
        *(f"  {words:<{width}}  {summary}" for words, summary in shown.items()),
        "",
        "Start with: engram quickstart",
        sep="\n",
    )
    return 0


def synopsis(name: str, command: Command) -> str:
    """A command and what it takes, as help shows it."""
    return f"{name} {command.words}{' [--option value ...]' * (command.experiment or bool(command.runs))}".rstrip()
