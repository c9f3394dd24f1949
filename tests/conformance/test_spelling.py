"""Every option of every experiment through every way in: one meaning, one identity, one name in everything printed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from engram.backbone.contract import Entry
from engram.backbone.errors import UserError
from engram.backbone.options import Checker
from engram.backbone.options.named import named_schema
from engram.backbone.options.schema import Option, schema
from engram.backbone.options.spelling import by_flag
from engram.backbone.options.values import as_type, plain
from engram.backbone.registry import Registry
from engram.backbone.weights import WeightsFile
from engram.benchmarks.commands.argv import parse, places
from engram.benchmarks.commands.command import flag
from engram.benchmarks.commands.flags import Planning
from engram.benchmarks.commands.help import show_experiment
from engram.benchmarks.drawing.tables import word
from engram.benchmarks.planning.config import experiment_config, full, without_defaults
from engram.benchmarks.records.outcomes import Outcome, Outcomes, choose_axes
from engram.benchmarks.sink.state import metric_key

REGISTRY = Registry.discover()
EXPERIMENTS = REGISTRY.names("experiments")


@dataclass(frozen=True)
class Case:
    """An option, what has to be chosen for it to exist, and a value that is not its default."""

    option: Option
    name: str
    chosen: dict[str, str]
    value: Any

    @property
    def spellings(self) -> list[str]:
        head, dot, tail = self.name.partition(".")
        old = f"{head}_options.{tail}" if dot else head
        return list(dict.fromkeys([self.name, f"--{self.name}", old, old.replace("-", "_")]))


def cases(experiment: str) -> Iterator[Case]:
    options = schema(experiment_config(REGISTRY, experiment))
    for option in options:
        if option.kind is not None and len(REGISTRY.names(option.kind)) == 1:
            continue  # there is no other one to name
        if option.options_of is None:
            if option.kind is not None and REGISTRY.names(option.kind) == [option.default]:
                continue  # there is nothing else to say
            yield Case(option, option.name, {}, some_value(option))
            continue
        owner = next(other for other in options if other.field == option.options_of)
        for _, name, entry in REGISTRY.choices(owner.kind):
            thing = spelled(name, entry)
            for sub in named_schema(REGISTRY, owner, [thing] if owner.many else thing) or ():
                yield Case(sub, f"{option.name}.{sub.name}", {owner.name: thing}, some_value(sub))


def spelled(name: str, entry: Entry) -> str:
    """A thing as an option names it."""
    return f"{name}:{'glyphs' if entry.wraps else 'x'}" if entry.takes_path else name


def some_value(option: Option) -> Any:
    """A value that the option takes and that is not its default."""
    tries: list[Any] = (
        [True, False] if option.base is bool else [*option.choices, 2, 3, 0.25, 0.75, 5, 8, 16, 28, 99, "4,5"]
    )
    if option.kind is not None:
        tries = [spelled(name, entry) for _, name, entry in REGISTRY.choices(option.kind)]
    if WeightsFile in map(type, option.metadata):
        tries = [__file__]  # what is in it is looked at when it is used
    for value in [*tries, "layer2>layer1", "layer2>layer2", "0.1,0.2", "contrast", "occlusion", "zero", "words"]:
        try:
            found, why = as_type(option, value)
        except UserError:  # of text with a form of its own
            continue
        if not why and plain(found) != plain(option.default):
            return found
    raise AssertionError(f"no value is known for {option.name}")


def told(cls: type, values: dict[str, Any]):
    """The configuration of values by name, without a look at how they go together."""
    checker = Checker(REGISTRY, lambda name: name, "")
    config = checker.build(cls, values)
    assert not checker.problems
    return without_defaults(REGISTRY, config)


def typed(cls: type, words: list[str]):
    """As `told`, from the command line."""
    parsed = parse(words, places("experiment", cls, REGISTRY, words), "")
    assert not parsed.problems
    return told(cls, parsed.values["experiment"])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_option_through_every_way_in(experiment):
    cls = experiment_config(REGISTRY, experiment)
    for case in cases(experiment):
        head = [word for owner, thing in case.chosen.items() for word in (flag(owner), thing)]
        once = told(cls, {**case.chosen, case.name: case.value})
        assert once is not None
        assert once != told(cls, dict(case.chosen)), case.name
        shown = by_flag(full(REGISTRY, once))  # what tables, reports and MLflow have
        assert shown[case.name] == plain(case.value)
        assert metric_key(case.name) == case.name
        outcomes = Outcomes("a", (), [Outcome("t", experiment, shown, {}, "done")])
        for spelling in case.spellings:
            flagged = [flag(spelling.lstrip("-")), *([] if case.value is True else [word(case.value)])]
            if case.value is False:
                flagged = [f"--no-{spelling.lstrip('-')}"]
            ways = [told(cls, {**case.chosen, spelling: case.value}), typed(cls, [*head, *flagged])]
            assert ways == [once, once], spelling
            assert choose_axes(outcomes, spelling) == (case.name,)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_help_prints_the_names_that_are_taken(experiment, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    cls = experiment_config(REGISTRY, experiment)
    show_experiment("run", experiment, [], REGISTRY, Planning)
    printed = set(re.findall(r"^\W*(--[a-z][\w.-]*)", capsys.readouterr().out, flags=re.MULTILINE))
    offered = places("experiment", cls, REGISTRY) | places("command", Planning)
    assert printed == set(offered)
