"""Groups over many tasks: how high they score, how they rank, and how probable it is that the best one is better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engram.backbone.contract import Direction
from engram.backbone.errors import must
from engram.backbone.measures.intervals import Interval
from engram.benchmarks.compare.across import (
    Floats,
    Ranks,
    alike,
    improvement,
    profile,
    ranked,
    ratios,
    typical,
)
from engram.benchmarks.compare.groups import MOST_GROUPS, Group, make_groups
from engram.benchmarks.drawing.tables import word
from engram.benchmarks.records.outcomes import Outcomes

_THRESHOLDS = 101


@dataclass(frozen=True)
class Standing:
    """A group over all tasks; ``behind`` is how probable it is that the best group beats it, None for the best one."""

    group: str
    typical: Interval
    """The interquartile mean of all its runs, with its bootstrap interval."""
    rank: float | None
    behind: Interval | None


@dataclass(frozen=True)
class Tasks:
    """Groups that have scores on every task, in the order of the table."""

    option: str
    names: tuple[str, ...]
    direction: Direction
    scores: Mapping[str, Sequence[Floats]]
    """By group: the scores of its runs on each task."""
    standings: list[Standing]
    ranks: Ranks | None
    """None where there is but one such group."""
    left_out: list[str]
    """Groups without a score on every task."""

    @property
    def verdict(self) -> str:
        """What the tests of ranks say, in one line."""
        if self.ranks is None:
            return "ranks need two groups with scores on every task"
        test = f"Friedman p = {self.ranks.p:.3g}, after Iman and Davenport {self.ranks.f_p:.3g}"
        return f"{test}; critical difference of mean ranks (Nemenyi, 95 %) {self.ranks.distance:.3f}"

    def alike(self) -> list[list[str]]:
        """Groups whose mean ranks do not differ, from the best on; a group may stand in several."""
        if self.ranks is None:
            return []
        order = sorted(zip(self.ranks.means, self.scores, strict=True), key=lambda each: each[0])
        names = [name for _, name in order]
        return [names[first : last + 1] for first, last in alike(self.ranks.means, self.ranks.distance)]

    def profiles(self) -> tuple[Floats, dict[str, tuple[Floats, Floats, Floats]]]:
        """Thresholds, and for each group the share of runs at least as good, with its band (mean over tasks)."""
        sign = 1 if self.direction == "max" else -1
        all_of = np.concatenate([runs for tasks in self.scores.values() for runs in tasks])
        at = np.linspace(all_of.min(), all_of.max(), _THRESHOLDS)
        found = {
            name: profile([sign * runs for runs in tasks], sign * at, np.random.default_rng(0))
            for name, tasks in self.scores.items()
        }
        return at, found

    def ratios(self) -> dict[str, Floats]:
        """By group the mean cost on each task over the least of any group, ascending; {} where scores are no costs."""
        means = np.array([[runs.mean() for runs in tasks] for tasks in self.scores.values()])
        if self.direction == "max" or means.min() <= 0:
            return {}
        return dict(zip(self.scores, np.sort(ratios(means), axis=1), strict=True))


def over_tasks(
    outcomes: Outcomes, axes: tuple[str, ...], metric: str, option: str, groups: Sequence[Group], direction: Direction
) -> Tasks:
    """What groups (best first) do over the values of ``option``; of more than `MOST_GROUPS` the best ones.

    Raises:
        UserError: there is but one task, or groups are made by it.
    """
    names = list(dict.fromkeys(word(trial.options.get(option)) for trial in outcomes.trials))
    if len(names) < 2:
        raise must("--tasks", "an option with several values", f"{option}, which is {names[0]}", "Name another one.")
    if option in axes:
        raise must("--tasks", "an option that makes no groups", option, "Take it out of --by.")
    held = [_scores(outcomes, axes, metric, option, name) for name in names]
    whole = [group.label for group in groups if all(group.label in each for each in held)][:MOST_GROUPS]
    scores = {name: [each[name] for each in held] for name in whole}
    sign = 1 if direction == "max" else -1
    ranks = ranked(sign * np.array([[runs.mean() for runs in scores[name]] for name in whole])) if whole[1:] else None
    places = dict(zip(whole, ranks.means, strict=True)) if ranks else {}
    standings = []
    for name in whole:
        ours, theirs = ([sign * runs for runs in scores[each]] for each in (whole[0], name))
        behind = None if name == whole[0] else improvement(ours, theirs, np.random.default_rng(0))
        standings.append(Standing(name, typical(scores[name], np.random.default_rng(0)), places.get(name), behind))
    left_out = [group.label for group in groups if group.label not in scores]
    return Tasks(option, tuple(names), direction, scores, standings, ranks, left_out)


def _scores(outcomes: Outcomes, axes: tuple[str, ...], metric: str, option: str, task: str) -> dict[str, Floats]:
    """By group the scores on one task, of the seeds where they are numbers."""
    trials = [trial for trial in outcomes.trials if word(trial.options.get(option)) == task]
    others = tuple(axis for axis in outcomes.axes if axis != option)
    found = make_groups(replace(outcomes, axes=others, trials=trials), axes, metric)
    numbers = {group.label: [score for score in group.scores.values() if math.isfinite(score)] for group in found}
    return {name: np.array(values) for name, values in numbers.items() if values}
