"""The little language of ``--fail-if``: parsed, never evaluated as code.

test/accuracy < 0.97                  trips when any group's mean is below
test/accuracy of lenet5 < 0.97        one group
low test/accuracy of lenet5 <= 0.95   mean, min, max, n, or an end of the interval: low, high
drop test/accuracy > 0.01             how much lower than in the stored baseline, over the seeds of both; rise: higher
worse test/accuracy                   worse than in the baseline, by the paired test
a < 1; b of mlp > 2                   several
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engram.backbone.errors import must
from engram.benchmarks.problems import Problems

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
STATISTICS = ("mean", "min", "max", "low", "high", "n", "drop", "rise")
WORSE = "worse"
_ABOUT = r"(?P<metric>[^\s<>=!;][^<>=!;]*?)(?:\s+of\s+(?P<group>\S.*?))?"
_FORM = re.compile(
    rf"(?:(?P<statistic>{'|'.join(STATISTICS)})\s+)?{_ABOUT}"
    r"\s*(?P<relation><=|>=|==|!=|<|>)\s*(?P<bound>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
)
_WORSE = re.compile(rf"{WORSE}\s+{_ABOUT}")


@dataclass(frozen=True)
class Condition:
    """One condition of ``--fail-if``; ``group`` None stands for any group, and ``worse`` has no relation."""

    text: str
    statistic: str
    metric: str
    group: str | None
    relation: str = ""
    bound: float = math.nan

    @property
    def stored(self) -> bool:
        """Whether it is about a stored baseline."""
        return self.statistic in ("drop", "rise", WORSE)

    def trips(self, value: float | None) -> bool:
        """Whether the value breaks the gate. A value that is missing or not a number does: nothing proves it good."""
        return value is None or math.isnan(value) or _COMPARE[self.relation](value, self.bound)


@dataclass(frozen=True)
class Check:
    """A condition tried on a group: what was found, and whether that trips it."""

    condition: str
    group: str
    said: str
    tripped: bool


@dataclass(frozen=True)
class GateResult:
    """What came of a gate: a check for every condition and group."""

    condition: str
    checks: tuple[Check, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it tripped, one line per group, or nothing."""
        return tuple(check.said for check in self.checks if check.tripped)

    @property
    def tripped(self) -> bool:
        return bool(self.reasons)


def parse(text: str) -> tuple[Condition, ...]:
    """Read the conditions in a text.

    >>> parse("test/accuracy of lenet5 < 0.97")[0].group
    'lenet5'

    Raises:
        UserError: a line for each that is none.
    """
    problems = Problems()
    found = [problems.of(lambda each=each: _parsed(each.strip())) for each in text.split(";")]
    problems.require()
    return tuple(each for each in found if each is not None)


def _parsed(text: str) -> Condition:
    if worse := _WORSE.fullmatch(text):
        return Condition(text, WORSE, worse["metric"], worse["group"])
    found = _FORM.fullmatch(text)
    if found is None:
        example = 'Write: --fail-if "test/accuracy < 0.97" or "drop test/accuracy of lenet5 > 0.01".'
        rule = f"[{'|'.join(STATISTICS)}] METRIC [of GROUP] RELATION NUMBER, or {WORSE} METRIC [of GROUP]"
        raise must("--fail-if", rule, repr(text), example)
    statistic = found["statistic"] or "mean"
    return Condition(text, statistic, found["metric"], found["group"], found["relation"], float(found["bound"]))
