"""The little language of ``--fail-if``: parsed, never evaluated as code.

test/accuracy < 0.97                  trips when any group's mean is below
test/accuracy of lenet5 < 0.97        one group
low test/accuracy of lenet5 <= 0.95   mean, min, max, n, or an end of the interval: low, high
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engram.backbone.errors import must

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
STATISTICS = ("mean", "min", "max", "low", "high", "n")
_FORM = re.compile(
    rf"(?:(?P<statistic>{'|'.join(STATISTICS)})\s+)?(?P<metric>[^\s<>=!][^<>=!]*?)(?:\s+of\s+(?P<group>\S.*?))?"
    r"\s*(?P<relation><=|>=|==|!=|<|>)\s*(?P<bound>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
)


@dataclass(frozen=True)
class Condition:
    """A parsed ``--fail-if``; ``group`` None stands for any group."""

    text: str
    statistic: str
    metric: str
    group: str | None
    relation: str
    bound: float

    def trips(self, value: float | None) -> bool:
        """Whether the value breaks the gate. A value that is missing or not a number does: nothing proves it good."""
        return value is None or math.isnan(value) or _COMPARE[self.relation](value, self.bound)


@dataclass(frozen=True)
class GateResult:
    """What came of a gate: why it tripped, one line per group, or nothing."""

    condition: str
    reasons: tuple[str, ...]

    @property
    def tripped(self) -> bool:
        return bool(self.reasons)


def parse(text: str) -> Condition:
    """Read a condition.

    >>> parse("test/accuracy of lenet5 < 0.97").group
    'lenet5'

    Raises:
        UserError: it is not one.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        example = 'Write: --fail-if "test/accuracy < 0.97" or "low test/accuracy of lenet5 < 0.95".'
        raise must("--fail-if", "[mean|min|max|low|high|n] METRIC [of GROUP] RELATION NUMBER", repr(text), example)
    statistic = found["statistic"] or "mean"
    return Condition(text, statistic, found["metric"], found["group"], found["relation"], float(found["bound"]))
