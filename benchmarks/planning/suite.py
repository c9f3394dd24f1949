"""A suite file: one experiment, fixed options, seeds, and a grid or a search (`engram.benchmarks.planning.search`).

experiment = "backbone.train"
seeds = 3                       # or [0, 1, 2]
[options]
dataset = "digits"
[grid]
backbone = ["lenet5", "vgg-tiny"]
"backbone.width" = [1.0, 2.0]   # in quotes: to TOML backbone.width is a table called backbone
"""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engram.backbone.contract import ExperimentConfig
from engram.backbone.errors import UserError, must, nearest
from engram.backbone.options import Checker
from engram.backbone.options.schema import schema
from engram.backbone.options.spelling import by_flag, twice
from engram.backbone.registry import Registry
from engram.benchmarks.planning.config import experiment_config
from engram.benchmarks.planning.search import Search, read_search, space_of
from engram.benchmarks.planning.space import draw, probes

KEYS = ("experiment", "name", "seeds", "options", "grid", "search")
MOST_TRIALS = 10_000
"""Of one suite: planning them takes seconds, running them days."""
LONGEST_NAME = 100
"""A suite's name is one of a folder, and part of others in the tracking store."""


@dataclass(frozen=True)
class Point:
    """One cell of the grid with one seed; ``given`` are all values that the suite gives it, checked, by field."""

    options: Mapping[str, Any]
    seed: int
    given: Mapping[str, Any]


@dataclass(frozen=True)
class Suite:
    """A checked suite: ``points`` in the order of the grid, seeds innermost; a ``search`` has none beforehand.

    ``path`` is the file it was read from: what tells an edited suite from another one of the same name. ``options`` are
    those that are fixed.
    """

    name: str
    path: str
    text: str
    experiment: str
    axes: Mapping[str, Sequence[Any]]
    seeds: tuple[int, ...]
    points: tuple[Point, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    search: Search | None = None

    def given(self, registry: Registry, options: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """All values, checked, by field, of a trial with these options beside the fixed ones.

        Raises:
            UserError: they are none of the experiment's.
        """
        checker = Checker(registry, lambda name: name, f"See: engram run {self.experiment} --help")
        found = checker.check(experiment_config(registry, self.experiment), {**self.options, **options, "seed": seed})
        checker.require()
        return found


def load_suite(path: Path, registry: Registry) -> Suite:
    """Read and check a suite, every point of its grid included.

    Raises:
        UserError: one line per problem; a malformed file is named with line and column.
    """
    text = _read(path)
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise must(
            str(path), "TOML of a few levels", "brackets within brackets beyond counting", "Mend them."
        ) from None
    except tomllib.TOMLDecodeError as error:
        twofold = "Cannot overwrite a value" in str(error) or "Cannot mutate" in str(error)
        remedy = 'Write names with a dot in quotes: "dataset.size" = 28.' if twofold else "Mend that place."
        raise must(str(path), "valid TOML", error, remedy) from None
    return check_suite(values, text, path, registry)


def check_suite(values: Mapping[str, Any], text: str, path: Path, registry: Registry) -> Suite:
    """As `load_suite`, from values already read."""
    problems = [
        f"suite key must be one of those offered; got {key}. {nearest(key, KEYS)} Rename it or move it to [options]."
        for key in values
        if key not in KEYS
    ]
    experiment, name = values.get("experiment"), values.get("name", path.stem)
    if not isinstance(experiment, str):
        raise UserError(
            "\n".join([*problems, f"experiment must be a name; got {experiment}. See: engram list experiments"])
        )
    if not isinstance(name, str) or not re.fullmatch(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}", name):
        rule = f"at most {LONGEST_NAME} letters, digits, dots and dashes"
        problems.append(f"name must be {rule}; got {name}. Give one with: name = ...")
    cls = experiment_config(registry, experiment)
    seeds, fixed, axes = _seeds(values, problems), _table(values, "options", problems), {}
    for axis, choices in _table(values, "grid", problems).items():
        if not isinstance(choices, list) or not choices:
            problems.append(f"grid.{axis} must be a list of values; got {choices}. Move a single value to [options].")
        else:
            axes[axis] = choices
            written = [repr(choice) for choice in choices]
            problems += [_twofold(axis, each, each) for each in choices if written.count(repr(each)) > 1][:1]
    problems += [
        f"{axis} must be given once; got options.{axis} and grid.{axis}. Drop one of the two."
        for axis in axes
        if axis in fixed
    ]
    count = math.prod((len(seeds), *map(len, axes.values())))
    if count > MOST_TRIALS:
        problems.append(f"a suite must have at most {MOST_TRIALS} trials; got {count}. Split it into several.")
        raise UserError("\n".join(problems))
    checker = Checker(registry, lambda name: name, f"See: engram run {experiment} --help", problems)
    place = path.resolve() if path.is_file() else path.absolute()  # a pipe has another name every time
    if "search" in values:
        search = _search(values, cls, fixed, seeds or (0,), checker)
        axes = {axis.name: () for axis in search.space}
        return Suite(str(name), str(place), text, experiment, axes, seeds, (), fixed, search)
    points = tuple(_points(cls, fixed, axes, seeds or (0,), checker))
    return Suite(str(name), str(place), text, experiment, axes, seeds, points, fixed)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise must("suite", "a TOML file", f"{path} ({why})", "Check the path; the README shows one.") from None


def _seeds(values: Mapping[str, Any], problems: list[str]) -> tuple[int, ...]:
    seeds = values.get("seeds", 1)
    if _is_seed(seeds) and 1 <= seeds <= MOST_TRIALS:
        return tuple(range(seeds))
    if isinstance(seeds, list) and seeds and all(_is_seed(seed) for seed in seeds):
        return tuple(dict.fromkeys(seeds))
    problems.append(f"seeds must be a number from 1 to {MOST_TRIALS} or a list of seeds; got {seeds}. Write: seeds = 3")
    return ()


def _is_seed(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _table(values: Mapping[str, Any], key: str, problems: list[str]) -> dict[str, Any]:
    """The options in a table by flag name, however they are spelled."""
    table = values.get(key, {})
    if not isinstance(table, Mapping):
        problems.append(f"{key} must be a table; got {table}. Write: [{key}]")
        return {}
    problems += twice(table)
    found = by_flag(table)
    if "seed" in found:
        problems.append(f"{key}.seed must be left out; got {found['seed']}. Write: seeds = [...] at the top.")
    return found


def _points(
    cls: type[ExperimentConfig],
    fixed: Mapping[str, Any],
    axes: Mapping[str, Sequence[Any]],
    seeds: tuple[int, ...],
    checker: Checker,
) -> list[Point]:
    """The checked points of the grid; raises UserError with all problems, those found before included."""
    cells: list[Point] = []
    for cell in itertools.product(*axes.values()):
        options = dict(zip(axes, cell, strict=True))
        cells.append(Point(options, 0, checker.check(cls, {**fixed, **options})))
    checked = [checker.check(cls, {"seed": seed}) for seed in seeds]
    checker.problems += _same(cells)
    checker.require()
    return [Point(each.options, seed["seed"], {**each.given, **seed}) for each in cells for seed in checked]


def _search(
    values: Mapping[str, Any],
    cls: type[ExperimentConfig],
    fixed: Mapping[str, Any],
    seeds: tuple[int, ...],
    checker: Checker,
) -> Search:
    """The checked search, with every value of its choices and the ends of its ranges; raises UserError as `_points`."""
    problems = checker.problems
    if "grid" in values:
        problems.append("a suite must have a grid or a search; got both. Write what the grid holds as lists of values.")
    table = values["search"]
    if not isinstance(table, Mapping):
        problems.append(f"search must be a table; got {table}. Write: [search]")
        table = {}
    space = space_of(table, problems)
    search = read_search(table, space, cls, seeds, MOST_TRIALS, problems)
    problems += [
        f"{axis.name} must be given once; got options.{axis.name} and search.space.{axis.name}. Drop one of the two."
        for axis in space
        if axis.name in fixed
    ]
    if any(axis.name == "seed" for axis in space):
        problems.append("search.space.seed must be left out; got a distribution. Write: seeds = [...] at the top.")
    usual = {option.name: option.default for option in schema(cls)}.get("validation")
    for options in (*probes(space), *(draw(space, 0, number) for number in range(1))):
        common = checker.check(cls, {**fixed, **{name: each for name, each in options.items() if name != "seed"}})
        asked = search is not None and "validation" in {each.split for each in search.objectives}
        if asked and common.get("validation", usual) == 0:
            problems.append("validation must be more than 0 for a search, which chooses by it; got 0. Give 0.1, say.")
    checker.problems = list(dict.fromkeys(problems))
    checker.require()
    assert search is not None  # or there was a problem
    return search


def _same(points: Sequence[Point]) -> list[str]:
    """A problem for each value of the grid that is another one in other words: "2" and 2.0 are 2."""
    first: dict[str, Point] = {}
    problems: dict[str, None] = {}
    for point in points:
        before = first.setdefault(repr(point.given), point).options
        apart = [axis for axis, value in point.options.items() if repr(value) != repr(before[axis])]
        problems |= dict.fromkeys(_twofold(axis, before[axis], point.options[axis]) for axis in apart[:1])
    return list(problems)


def _twofold(axis: str, value: Any, again: Any) -> str:
    return f"grid.{axis} must hold different values; got {value!r} and {again!r}. Drop one of the two."
