"""A suite file: one experiment, fixed options, a grid and seeds.

experiment = "backbone.train"
seeds = 3                       # or [0, 1, 2]
[options]
dataset = "digits"
[grid]
backbone = ["lenet5", "vgg-tiny"]
"backbone.width" = [1.0, 2.0]   # or a table: [grid.backbone_options]
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbone.contract import ExperimentConfig
from backbone.errors import UserError, must, nearest
from backbone.registry import Registry
from benchmarks.config import Checker, experiment_config
from benchmarks.schema import schema

KEYS = ("experiment", "name", "seeds", "options", "grid")


@dataclass(frozen=True)
class Point:
    """One cell of the grid with one seed."""

    options: Mapping[str, Any]
    seed: int
    config: ExperimentConfig


@dataclass(frozen=True)
class Suite:
    """A checked suite: ``points`` in the order of the grid, seeds innermost."""

    name: str
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
    except tomllib.TOMLDecodeError as error:
        raise must(str(path), "valid TOML", error, "Mend that place.") from None
    return check_suite(values, text, path.stem, registry)


def check_suite(values: Mapping[str, Any], text: str, stem: str, registry: Registry) -> Suite:
    """As `load_suite`, from values already read."""
    problems = [
        f"suite key must be one of those offered; got {key}. {nearest(key, KEYS)} Rename it or move it to [options]."
        for key in values
        if key not in KEYS
    ]
    experiment, name = values.get("experiment"), values.get("name", stem)
    if not isinstance(experiment, str):
        raise UserError(
            "\n".join([*problems, f"experiment must be a name; got {experiment}. See: engram list experiments"])
        )
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        problems.append(f"name must be letters, digits, dots and dashes; got {name}. Give one with: name = ...")
    cls = experiment_config(registry, experiment)
    seeds, fixed, axes = _seeds(values, problems), _table(values, "options", problems), {}
    problems += [
        f"{table}.seed must be left out; got {values[table]['seed']}. Write: seeds = [...] at the top."
        for table in ("options", "grid")
        if isinstance(values.get(table), Mapping) and "seed" in values[table]
    ]
    for key, choices in _leaves(_table(values, "grid", problems), cls):
        if not isinstance(choices, list) or not choices:
            problems.append(f"grid.{key} must be a list of values; got {choices}. Move a single value to [options].")
        else:
            axes[key] = choices
    checker = Checker(registry, lambda path: path, f"See: engram run {experiment} --help", problems)
    points = tuple(_points(cls, fixed, axes, seeds or (0,), checker))
    return Suite(str(name), text, experiment, axes, seeds, points)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise must("suite", "a TOML file", f"{path} ({why})", "Check the path; the README shows one.") from None


def _seeds(values: Mapping[str, Any], problems: list[str]) -> tuple[int, ...]:
    seeds = values.get("seeds", 1)
    if _is_seed(seeds) and seeds >= 1:
        return tuple(range(seeds))
    if isinstance(seeds, list) and seeds and all(_is_seed(seed) for seed in seeds):
        return tuple(dict.fromkeys(seeds))
    problems.append(f"seeds must be a number of at least 1 or a list of seeds; got {seeds}. Write: seeds = 3")
    return ()


def _is_seed(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _table(values: Mapping[str, Any], key: str, problems: list[str]) -> Mapping[str, Any]:
    table = values.get(key, {})
    if isinstance(table, Mapping):
        return table
    problems.append(f"{key} must be a table; got {table}. Write: [{key}]")
    return {}


def _leaves(grid: Mapping[str, Any], cls: type) -> Iterator[tuple[str, Any]]:
    """Axes by flag name: the table backbone_options holds axes backbone.width and so on."""
    owners = {option.key: option.options_of for option in schema(cls) if option.options_of}
    for key, value in grid.items():
        if key in owners and isinstance(value, Mapping):
            yield from ((f"{owners[key]}.{name}", choices) for name, choices in value.items())
        else:
            head, dot, tail = key.partition(".")
            yield f"{owners.get(head, head)}{dot}{tail}", value


def _points(
    cls: type[ExperimentConfig],
    fixed: Mapping[str, Any],
    axes: Mapping[str, Sequence[Any]],
    seeds: tuple[int, ...],
    checker: Checker,
) -> list[Point]:
    """The checked points of the grid; raises UserError with all problems, those found before included."""
    tables = {option.options_of: option.key for option in schema(cls) if option.options_of}
    found: list[Point] = []
    for cell in itertools.product(*axes.values()):
        options = dict(zip(axes, cell, strict=True))
        for seed in seeds:
            values = {key: dict(value) if isinstance(value, Mapping) else value for key, value in fixed.items()}
            values["seed"] = seed
            for key, value in options.items():
                head, dot, tail = key.partition(".")
                if dot and head in tables:
                    values.setdefault(tables[head], {})[tail] = value
                else:
                    values[key] = value
            config = checker.build(cls, values)
            if config is not None:
                found.append(Point(options, config.seed, config))
    if checker.problems:
        raise UserError("\n".join(checker.problems))
    for point in found:
        checker.finish(point.config)
    return found
