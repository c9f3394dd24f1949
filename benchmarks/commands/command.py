"""From a command's tokens to its checked flags; shared by all handlers."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TypeVar

from engram.backbone.contract import ExperimentConfig
from engram.backbone.errors import UserError
from engram.backbone.registry import Registry
from engram.benchmarks.commands.argv import Place, parse, places, unregistered
from engram.benchmarks.commands.catalogue import Command
from engram.benchmarks.commands.flags import Nothing
from engram.benchmarks.planning.config import Checker, experiment_config

F = TypeVar("F", bound=Nothing)


def read(
    name: str, command: Command, argv: Sequence[str], flags: type[F], words: int = 0
) -> tuple[list[str], F] | None:
    """(words, flags) of a command without an experiment; None when help was asked for and printed.

    Raises:
        UserError: one line per problem.
    """
    if asks_help(argv):
        from engram.benchmarks.commands.help import show_command

        show_command(name, command, flags)
        return None
    see = f"See: engram {name} --help"
    parsed = parse(argv, places("command", flags), see)
    checker = Checker(Registry({}), flag, see, parsed.problems)
    found = checker.build(flags, parsed.values.get("command", {}))
    checker.problems += found.problems() if found else []
    expected = [word for word in command.words.split() if not word.startswith("[")]
    if len(parsed.words) < len(expected):
        checker.problems.append(f"{expected[len(parsed.words)]} must be given; got nothing. {see}")
    if len(parsed.words) > max(words, len(expected)):
        extra = " ".join(parsed.words[max(words, len(expected)) :])
        checker.problems.append(f"arguments must be {command.words or 'options only'}; got {extra} as well. {see}")
    if checker.problems or found is None:
        raise UserError("\n".join(checker.problems))
    return parsed.words, found


def read_experiment(
    experiment: str, argv: Sequence[str], flags: type[F], registry: Registry
) -> tuple[F, ExperimentConfig]:
    """The flags of ``engram run`` and the configuration of the experiment, every mistake reported at once.

    Raises:
        UserError: one line per problem.
    """
    see = f"See: engram run {experiment} --help"
    cls = experiment_config(registry, experiment)
    table: Mapping[str, Place] = places("command", flags) | places("experiment", cls, registry, argv)
    parsed = parse(argv, table, see, unregistered(cls, registry, argv))
    checker = Checker(registry, flag, see, parsed.problems)
    found = checker.build(flags, parsed.values.get("command", {}))
    checker.problems += found.problems() if found else []
    config = checker.build(cls, parsed.values.get("experiment", {}))
    if parsed.words:
        checker.problems.append(f"arguments must be options only; got {' '.join(parsed.words)} as well. {see}")
    config = checker.finish(config)
    if found is None:
        raise UserError("\n".join(checker.problems))
    return found, config


def flag(name: str) -> str:
    """How an option is written on the command line."""
    return f"--{name}"


def asks_help(argv: Sequence[str]) -> bool:
    return any(word in ("-h", "--help") for word in argv)


def say(text: str) -> None:
    """A line for people; standard output belongs to results."""
    print(text, file=sys.stderr, flush=True)
