"""Help texts, rendered by tyro from the same dataclasses that are validated."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import tyro

from engram.backbone.contract import Command, ExperimentConfig
from engram.backbone.options.named import named_options
from engram.backbone.options.schema import owners, schema
from engram.backbone.registry import Registry
from engram.benchmarks.commands.argv import last_given
from engram.benchmarks.commands.usage import synopsis
from engram.benchmarks.planning.config import experiment_config


def show_command(name: str, command: Command, flags: type) -> None:
    """Print the help of a command."""
    _print(flags, f"engram {synopsis(name, command)}", f"{command.summary}." if command.summary else "")


def show_experiment(name: str, experiment: str, argv: Sequence[str], registry: Registry, flags: type) -> None:
    """Print an experiment's options, those of the network and data set that ``argv`` chooses included.

    ``name`` is what is typed before them.
    """
    about = " ".join((experiment_config(registry, experiment).__doc__ or "").split())
    _print(with_runner_flags(experiment, argv, registry, flags), f"engram {name}", about)


def with_runner_flags(experiment: str, argv: Sequence[str], registry: Registry, flags: type) -> type:
    """A dataclass of an experiment's options and those of its command, side by side."""
    cls = experiment_config(registry, experiment)
    parts = {"experiment": with_named_options(cls, registry, argv), "runner": flags}
    fields = [(name, Annotated[part, tyro.conf.arg(name="")]) for name, part in parts.items()]
    return dataclasses.make_dataclass("Options", fields, kw_only=True)


def with_named_options(cls: type[ExperimentConfig], registry: Registry, argv: Sequence[str]) -> type:
    """A dataclass like ``cls`` to render: resolved defaults, and ``--backbone.width`` and the like as real fields."""
    options, defaults = schema(cls), _defaults(cls, argv)
    fields: list[tuple[str, Any, Any]] = []
    for option in options:
        if option.options_of is None:
            default = getattr(defaults, option.field)
            hint = option.type | Literal[option.words] if option.words else option.type  # pyright: ignore[reportInvalidTypeArguments]
            hint = hint | None if default is None else hint
            named = Annotated[hint, tyro.conf.arg(name=option.key)] if option.key != option.field else hint
            fields.append((option.field, named, dataclasses.field(default=default)))
            continue
        owner = owners(cls)[option.field]
        chosen = named_options(registry, owner, last_given(argv, owner))
        hint = Annotated[chosen, tyro.conf.arg(name=owner.key)] if chosen else tyro.conf.Suppress[str]
        default = dataclasses.field(default_factory=chosen) if chosen else dataclasses.field(default="")
        fields.append((option.field, hint, default))
    return dataclasses.make_dataclass(cls.__name__, fields, bases=(cls,), frozen=True, kw_only=True)


def _defaults(cls: type[ExperimentConfig], argv: Sequence[str]) -> ExperimentConfig:
    """What leaving an option out gives, for the named things that ``argv`` chooses: recipes depend on them."""
    named = [option for option in schema(cls) if option.kind is not None]
    chosen: dict[str, Any] = {option.field: last_given(argv, option) for option in named}
    try:
        return cls.resolve(chosen)
    except Exception:  # help must come up whatever else is on the command line
        return cls()


def _print(cls: type, program: str, description: str) -> None:
    sys.stdout.flush()
    try:
        tyro.cli(cls, prog=program, description=description, args=["--help"])
    except SystemExit:
        return
