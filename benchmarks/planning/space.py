"""What a search may try: a distribution for every option, each drawn by itself.

A draw is a pure function of the seed, the option's name and the number of the proposal: an option more moves no other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engram.backbone.options.spelling import spell
from engram.backbone.shares import share

_KEYS = ("low", "high", "log", "values", "when")
_DIGITS = 6
"""Significant digits of what is drawn from a range of real numbers: what is written can be read and typed again."""
Number = int | float


@dataclass(frozen=True)
class Choice:
    """One of several values, each as likely as any other."""

    values: tuple[Any, ...]

    def at(self, u: float) -> Any:
        """The value at a share ``u`` in [0, 1) of the distribution."""
        return self.values[int(u * len(self.values))]

    @property
    def ends(self) -> Sequence[Any]:
        """Values that must all be possible where any is."""
        return self.values


@dataclass(frozen=True)
class Range:
    """A number from ``low`` to ``high``, both included; ``log``: every ratio of two is as likely as any other.

    Whole numbers where both ends are.
    """

    low: Number
    high: Number
    log: bool = False

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, u: float) -> Number:
        """The value at a share ``u`` in [0, 1) of the distribution.

        >>> Range(1, 4).at(0.99), Range(1.0, 100.0, log=True).at(0.5), Range(1, 64, log=True).at(0.0)
        (4, 10.0, 1)
        """
        margin = 0.5 if self.whole else 0.0  # a whole number stands for what rounds to it
        low, high = self.low - margin, self.high + margin
        value = math.exp(math.log(low) + u * math.log(high / low)) if self.log else low + u * (high - low)
        return self.nearest(value)

    def nearest(self, value: float) -> Number:
        """A value of this range: rounded, and no further out than its ends."""
        rounded = math.floor(value + 0.5) if self.whole else float(f"{value:.{_DIGITS}g}")
        return min(max(rounded, self.low), self.high)

    @property
    def ends(self) -> Sequence[Number]:
        return (self.low, self.high)


@dataclass(frozen=True)
class Axis:
    """An option that a search draws; ``when`` (option -> value): only where these were drawn of others."""

    name: str
    values: Choice | Range
    when: Mapping[str, Any]

    def counts(self, drawn: Mapping[str, Any]) -> bool:
        """Whether it is drawn where the others, which come before it, are ``drawn`` so."""
        return all(drawn.get(name, _NOTHING) == value for name, value in self.when.items())


Space = tuple[Axis, ...]
_NOTHING = object()


def draw(space: Space, seed: int, number: int) -> dict[str, Any]:
    """The options of proposal ``number`` of a random search.

    >>> space = read_space({"lr": {"low": 0.001, "high": 1.0, "log": True}, "steps": [4, 8]}, [])
    >>> draw(space, 0, 3)["lr"] == draw(space[:1], 0, 3)["lr"]
    True
    """
    drawn: dict[str, Any] = {}
    for axis in space:
        if axis.counts(drawn):
            drawn[axis.name] = axis.values.at(share(f"{seed}/search/{axis.name}/{number}"))
    return drawn


def probes(space: Space) -> Iterator[dict[str, Any]]:
    """Points that between them have every value of a choice and both ends of every range."""
    for index in range(max((len(axis.values.ends) for axis in space), default=0)):
        held: dict[str, Any] = {}
        for axis in space:
            ends = axis.values.ends
            if axis.counts(held):
                held[axis.name] = ends[min(index, len(ends) - 1)]
        yield held
    for axis in space:  # what is drawn with certain values of others alone
        if axis.when:
            yield from ({**axis.when, axis.name: value} for value in axis.values.ends)


def read_space(table: Mapping[str, Any], problems: list[str], where: str = "search.space") -> Space:
    """The axes of a table, in an order in which each follows those that it hangs on; adds to ``problems``."""
    found: dict[str, Axis] = {}
    for key, value in _distributions(table):
        name = spell(key)
        if name in found:
            problems.append(f"{name} must be given once; got {where}.{key} and another spelling. Drop one of the two.")
        axis = _axis(name, value, f"{where}.{key}", problems)
        if axis is not None:
            found[name] = axis
    return _ordered(found, where, problems)


def _distributions(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Tables of options of named things as one, keys joined by dots; a distribution is a table too."""
    for key, value in table.items():
        if isinstance(value, Mapping) and value and not set(value) & set(_KEYS):
            yield from _distributions(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _axis(name: str, value: Any, where: str, problems: list[str]) -> Axis | None:
    how = "Write a list of values, or { low = 1e-4, high = 0.1, log = true }."
    table = {"values": value} if isinstance(value, list) else value
    if not isinstance(table, Mapping) or set(table) - set(_KEYS) or ("values" in table) == ("low" in table):
        problems.append(f"{where} must be a distribution; got {value}. {how}")
        return None
    when = table.get("when", {})
    if not isinstance(when, Mapping):
        problems.append(
            f"{where}.when must be a table of options and values; got {when}. Write: when = {{ option = 1 }}"
        )
        return None
    held = _choice(table, where, problems) if "values" in table else _range(table, where, problems)
    return None if held is None else Axis(name, held, {spell(key): each for key, each in when.items()})


def _choice(table: Mapping[str, Any], where: str, problems: list[str]) -> Choice | None:
    values = table["values"]
    if set(table) - {"values", "when"} or not isinstance(values, list) or not values:
        problems.append(f"{where} must be a list of values; got {table}. Write: [1, 2]")
        return None
    written = [repr(value) for value in values]
    again = [each for each in dict.fromkeys(written) if written.count(each) > 1]
    problems += [f"{where} must hold different values; got {each} twice. Drop one of the two." for each in again]
    return Choice(tuple(values))


def _range(table: Mapping[str, Any], where: str, problems: list[str]) -> Range | None:
    low, high, log = table.get("low"), table.get("high"), table.get("log", False)
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
    if not numbers or not math.isfinite(low) or not math.isfinite(high) or not low < high:  # type: ignore[arg-type, operator]
        problems.append(f"{where} must reach from a number to a higher one; got {low} and {high}. Give low and high.")
        return None
    if not isinstance(log, bool) or (log and low <= 0):  # type: ignore[operator]
        problems.append(f"{where} must begin above 0 to be drawn by ratio; got {low}, log = {log}. Leave log out.")
        return None
    return Range(low, high, log)  # type: ignore[arg-type]


def _ordered(axes: Mapping[str, Axis], where: str, problems: list[str]) -> Space:
    placed: dict[str, Axis] = {}
    waiting = dict(axes)
    while waiting:
        ready = [name for name, axis in waiting.items() if set(axis.when) <= set(placed)]
        if not ready:
            for name, axis in waiting.items():
                others = ", ".join(each for each in axis.when if each not in placed)
                rule = "hang on options of the space that do not hang on it"
                problems.append(f"{where}.{name}.when must {rule}; got {others}. Name others, or leave when out.")
            break
        placed |= {name: waiting.pop(name) for name in ready}
    for name, axis in placed.items():
        for other, value in axis.when.items():
            if isinstance(held := placed[other].values, Choice) and value in held.values:
                continue
            problems.append(
                f"{where}.{name}.when must name values of a list; got {other} = {value}. Name one that {other} has."
            )
    return tuple(placed.values())
