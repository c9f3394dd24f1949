"""Tries the conditions of ``--fail-if`` on groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from engram.backbone.contract import Direction
from engram.backbone.errors import must, nearest
from engram.backbone.measures.intervals import LEVEL
from engram.benchmarks.compare.baseline import Baseline, Scores
from engram.benchmarks.compare.gate import WORSE, Check, Condition, GateResult
from engram.benchmarks.compare.groups import Group, label, make_groups
from engram.benchmarks.compare.stats import all_paired, holm, verdict
from engram.benchmarks.problems import Problems
from engram.benchmarks.records.meaning import bounds_of, declared
from engram.benchmarks.records.outcomes import Outcomes, choose_metric


def judge(
    text: str, conditions: Sequence[Condition], outcomes: Outcomes, axes: tuple[str, ...], baseline: Baseline | None
) -> GateResult:
    """Try conditions on every group they speak of.

    Raises:
        UserError: a line for each metric and group that does not exist, and where there is no baseline that is spoken
            of.
    """
    problems = Problems()
    tried = [problems.of(lambda each=each: _tried(each, outcomes, axes, baseline)) for each in conditions]
    problems.require()
    return GateResult(text, tuple(check for checks in tried for check in checks or ()))


def _tried(condition: Condition, outcomes: Outcomes, axes: tuple[str, ...], baseline: Baseline | None) -> list[Check]:
    metric = choose_metric(outcomes, condition.metric)
    groups = {group.label: group for group in make_groups(outcomes, axes, metric)}
    if condition.stored:
        return [*_against(condition, metric, outcomes, groups, baseline)]
    checks: list[Check] = []
    for name in _spoken_of(condition, list(dict.fromkeys(label(axes, trial.options) for trial in outcomes.trials))):
        value = groups[name].statistic(condition.statistic) if name in groups else None
        checks.append(_check(condition, metric, name, value))
    return checks


def _spoken_of(condition: Condition, labels: list[str]) -> list[str]:
    if condition.group is None:
        return labels
    if condition.group not in labels:
        raise must("--fail-if's group", "one of the table", repr(condition.group), nearest(condition.group, labels))
    return [condition.group]


def _check(condition: Condition, metric: str, name: str, value: float | None) -> Check:
    shown = "unknown" if value is None else f"{value:.6g}"
    said = f"{condition.statistic} {metric} of {name} is {shown}"
    return Check(condition.text, name, said, condition.trips(value))


def _against(
    condition: Condition, metric: str, outcomes: Outcomes, groups: Mapping[str, Group], baseline: Baseline | None
) -> Iterator[Check]:
    """Checks of the groups that the baseline has: one that is new has nothing to be worse than."""
    if baseline is None:
        remedy = "Give --baseline FILE.json, which an earlier compare wrote: --to FILE.json"
        raise must("--fail-if", "without drop, rise and worse where there is no baseline", repr(condition.text), remedy)
    before = baseline.of(metric)
    names = _spoken_of(condition, list(before))
    if condition.statistic != WORSE:
        for name in names:
            change = _change(groups, before, name)
            down = condition.statistic == "drop"
            yield _check(condition, metric, name, None if change is None else 0.0 - change if down else change)
        return
    promised = declared(outcomes.experiment)
    if metric not in promised:
        remedy = 'Say which way: "drop METRIC > NUMBER" or "rise METRIC > NUMBER".'
        raise must("--fail-if worse", "about a metric that says what is better", metric, remedy)
    yield from _worse(condition, names, groups, before, promised[metric].direction, outcomes, metric)


def _change(groups: Mapping[str, Group], before: Scores, name: str) -> float | None:
    """Now minus then, over the seeds of both."""
    now = groups[name].scores if name in groups else {}
    both = now.keys() & before[name].keys()
    return sum(now[seed] - before[name][seed] for seed in both) / len(both) if both else None


def _worse(
    condition: Condition,
    names: Sequence[str],
    groups: Mapping[str, Group],
    before: Scores,
    direction: Direction,
    outcomes: Outcomes,
    metric: str,
) -> Iterator[Check]:
    """By sign flips over the seeds of both, Holm over the groups; with too few seeds nothing proves it good."""
    bounds = bounds_of(declared(outcomes.experiment), metric)
    tests = all_paired([(groups[name].scores if name in groups else {}, before[name]) for name in names], bounds)
    known = [test.p for test in tests if test.p is not None]
    adjusted = iter(holm(known))
    for name, test in zip(names, tests, strict=True):
        p = None if test.p is None else next(adjusted)
        found = verdict(len(test.seeds), p, len(known))
        change = test.difference.mean
        down = change < 0 if direction == "max" else change > 0
        tripped = down if found == "differs" else found != "no difference shown" and not _same(test.seeds, change)
        told = "" if p is None else f" by {change:+.6g} (p = {p:.3g}, {LEVEL:g} is the level)"
        yield Check(condition.text, name, f"{metric} of {name} differs from the baseline{told}: {found}", tripped)


def _same(seeds: Sequence[int], change: float) -> bool:
    """Scores that have not changed at all are no worse, however few they are."""
    return bool(seeds) and change == 0
