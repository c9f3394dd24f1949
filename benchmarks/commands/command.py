"""From a command's tokens to its checked flags; shared by all commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from engram.backbone.contract import Command, Flags
from engram.backbone.errors import UserError
from engram.backbone.options import Checker
from engram.backbone.options.schema import schema
from engram.backbone.registry import Registry, resolve
from engram.benchmarks.commands.argv import Place, parse, places, unregistered
from engram.benchmarks.commands.flags import Planning
from engram.benchmarks.given import Given
from engram.benchmarks.planning.config import experiment_config

F = TypeVar("F", bound=Flags)


def invoke(name: str, command: Command, argv: Sequence[str], discover: Callable[[], Registry]) -> int:
    """Run a command with its tokens, or print its help where that is asked for; the exit code.

    Raises:
        UserError: one line per problem.
    """
    if command.runs:
        return _run(name, command, argv, discover)
    cls: type[Flags] = _object(name, command.flags)
    named = command.experiment and bool(argv) and not argv[0].startswith("-")
    if asks_help(argv):
        from engram.benchmarks.commands.help import show_command, show_experiment

        if named:
            show_experiment(f"{name} {argv[0]}", argv[0], argv[1:], discover(), cls)
        else:
            show_command(name, command, cls)
        return 0
    typed = (name, *argv)
    if named:
        flags, options = read_experiment(argv[0], argv[1:], cls, discover(), name)
        given = Given(typed, argv[:1], flags, options, discover)
    else:
        words, flags = read(name, command, argv, cls, discover)
        given = Given(typed, words, flags, None, discover)
    handle: Callable[[Given[Flags]], int] = _object(name, command.handler)
    return handle(given)


def _run(name: str, command: Command, argv: Sequence[str], discover: Callable[[], Registry]) -> int:
    """A command that runs one experiment: as ``engram run``, but with the trial it is made from as a word."""
    from engram.benchmarks.commands.run import run

    if asks_help(argv):
        from engram.benchmarks.commands.help import show_experiment

        show_experiment(f"{name} {command.words}", command.runs, argv, discover(), Planning)
        return 0
    flags, options = read_experiment(command.runs, argv, Planning, discover(), name, ("from",))
    return run(Given((name, *argv), (command.runs,), flags, options, discover))


def _object(name: str, where: str) -> Any:
    """What a command names; a plugin's own module may fail in any way."""
    try:
        return resolve(where)
    except Exception as error:
        why = f"{where} ({type(error).__name__}: {error})".splitlines()[0]
        remedy = "Mend or uninstall the plugin that brings it."
        raise UserError(f"command {name} must be one that can be loaded; got {why}. {remedy}") from error


def read(
    name: str, command: Command, argv: Sequence[str], cls: type[F], discover: Callable[[], Registry]
) -> tuple[list[str], F]:
    """(words, flags) of a command without an experiment.

    Raises:
        UserError: one line per problem.
    """
    see = f"See: engram {name} --help"
    registry = discover() if any(option.kind for option in schema(cls)) else Registry({})
    parsed = parse(argv, places("command", cls, registry, argv), see, unregistered(cls, registry, argv))
    checker = Checker(registry, flag, see, parsed.problems)
    found = checker.build(cls, parsed.values.get("command", {}))
    checker.problems += found.problems() if found else []
    most = command.words.split()
    expected = [word for word in most if not word.startswith("[")]
    if len(parsed.words) < len(expected):
        checker.problems.append(f"{expected[len(parsed.words)]} must be given; got nothing. {see}")
    if len(parsed.words) > len(most) and not command.words.endswith("..."):
        extra = " ".join(parsed.words[len(most) :])
        checker.problems.append(f"arguments must be {command.words or 'options only'}; got {extra} as well. {see}")
    if checker.problems or found is None:
        raise UserError("\n".join(checker.problems))
    return parsed.words, found


def read_experiment(
    experiment: str,
    argv: Sequence[str],
    flags: type[F],
    registry: Registry,
    name: str = "run",
    takes: Sequence[str] = (),
) -> tuple[F, dict[str, Any]]:
    """The flags of the command ``name`` and the values given to the experiment by field, every mistake at once.

    Args:
        takes: the options of the experiment that words stand for.

    Raises:
        UserError: one line per problem.
    """
    see = f"See: engram {name} {'' if takes else f'{experiment} '}--help"
    cls = experiment_config(registry, experiment)
    table: Mapping[str, Place] = places("command", flags) | places("experiment", cls, registry, argv)
    parsed = parse(argv, table, see, unregistered(cls, registry, argv))
    parsed.values.setdefault("experiment", {}).update(zip(takes, parsed.words))  # noqa: B905 - words may be missing
    checker = Checker(registry, flag, see, parsed.problems)
    found = checker.build(flags, parsed.values.get("command", {}))
    checker.problems += found.problems() if found else []
    given = checker.check(cls, parsed.values.get("experiment", {}))
    if more := parsed.words[len(takes) :]:
        rule = "TRIAL and options" if takes else "options only"
        checker.problems.append(f"arguments must be {rule}; got {' '.join(more)} as well. {see}")
    if checker.problems or found is None:
        raise UserError("\n".join(checker.problems))
    return found, given


def flag(name: str) -> str:
    """How an option is written on the command line."""
    return f"--{name}"


def asks_help(argv: Sequence[str]) -> bool:
    return any(word in ("-h", "--help") for word in argv)
