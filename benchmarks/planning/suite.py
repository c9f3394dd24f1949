"""A suite file: one experiment, fixed options, a grid and seeds.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engram.backbone.contract import ExperimentConfig
from engram.backbone.errors import UserError, must, nearest
from engram.backbone.options import Checker
from engram.backbone.options.spelling import by_flag, twice
from engram.backbone.registry import Registry
from engram.benchmarks.planning.config import experiment_config

KEYS = ("experiment", "name", "seeds", "options", "grid")
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
    """A checked suite: ``points`` in the order of the grid, seeds innermost.

    ``path`` is the file it was read from: what tells an edited suite from another one of the same name.
    """

    name: str
    path: str
    text: str
    experiment: str
    axes: Mapping[str, Sequence[Any]]
    seeds: tuple[int, ...]
    points: tuple[Point, ...]


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
    points = tuple(_points(cls, fixed, axes, seeds or (0,), checker))
    place = path.resolve() if path.is_file() else path.absolute()  # a pipe has another name every time
    return Suite(str(name), str(place), text, experiment, axes, seeds, points)


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
    found: list[Point] = []
    for cell in itertools.product(*axes.values()):
        options = dict(zip(axes, cell, strict=True))
        common = checker.check(cls, {**fixed, **options})
        for seed in seeds:
            given = common | checker.check(cls, {"seed": seed})
            found.append(Point(options, given["seed"], given))
    checker.problems += _same(found)
    checker.require()
    return found


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
