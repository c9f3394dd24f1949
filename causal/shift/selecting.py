"""Choosing among the trainings of sweeps, by each of three policies (``engram select``).

In every seed a policy chooses one training of all that differ in nothing else that is compared: the one whose score by
that policy is the highest. What the choice is worth is averaged over seeds, so that an interval holds the luck of the
choice as well.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from engram.backbone.contract import UNIT_BOUNDS, Finished, Invocation, Row
from engram.backbone.errors import must, nearest
from engram.backbone.tables import as_csv, as_markdown
from engram.causal.shift.policies import POLICIES, Selection
from engram.causal.shift.selecting_flags import SelectFlags

EXPERIMENT = "causal.shift"
COMPARED = ("objective", "held-out")
"""Options whose values are compared, and never chosen."""
AVERAGE = "mean of all"
"""Stands for the environments held out where their mean is meant."""


@dataclass(frozen=True)
class Choice:
    """What a policy chose in one seed: a trial, and what it is worth."""

    trial: str
    value: float


@dataclass(frozen=True)
class Chosen:
    """What policies chose among the trainings of one kind.

    Attributes:
        kind: the values of what is compared, by option.
        trainings: the most that there were to choose from in a seed.
        choices: by policy and seed; of a policy that had nothing to choose by, none.
    """

    kind: Mapping[str, str]
    trainings: int
    choices: Mapping[Selection, Mapping[int, Choice]]

    def values(self, policy: Selection) -> dict[int, float]:
        """What its choices are worth, by seed."""
        return {seed: choice.value for seed, choice in self.choices[policy].items()}


def select(given: Invocation[SelectFlags]) -> int:
    """Print what each policy chooses among the trainings of some sweeps, and what that is worth.

    Raises:
        UserError: a sweep is unknown, has no finished trial of this experiment, or lacks the metric or an option.
    """
    flags, asked = given.flags, [trial for name in given.words for trial in given.sweep(given.flags.out, name)]
    trials = list({trial.trial: trial for trial in asked if trial is not None}.values())
    require(trials, " ".join(given.words), flags)
    if missing := asked.count(None):
        print(f"engram: {missing} of {len(asked)} trials are not finished, and not counted", file=sys.stderr)
    found = choose(trials, (*COMPARED, *flags.by), flags.metric)
    if flags.json:
        print(json.dumps({"metric": flags.metric, "policies": dict(POLICIES), "rows": long(found)}))
    else:
        print(markdown(found, flags.metric), end="")
    if flags.to is not None:
        text = as_csv(long(found)) if flags.to.suffix == ".csv" else markdown(found, flags.metric)
        flags.to.write_text(text, encoding="utf-8")
    return 0


def require(trials: Sequence[Finished], sweeps: str, flags: SelectFlags) -> None:
    """Refuse trials among which nothing can be chosen.

    Raises:
        UserError: there is none of this experiment, or one lacks the metric or an option.
    """
    ours = [trial for trial in trials if trial.experiment == EXPERIMENT]
    if not ours or len(ours) < len(trials):
        got = ", ".join(sorted({trial.experiment for trial in trials})) or "no finished trial"
        raise must(f"sweep {sweeps}", f"one of {EXPERIMENT} with finished trials", got, "Run: engram sweep SUITE.toml")
    known = sorted({name for trial in ours for row in trial.tables["policies"] for name in row if "/" in name})
    if flags.metric not in known:
        raise must("--metric", "one that policies are told of", flags.metric, nearest(flags.metric, known))
    options = sorted({name for trial in ours for name in trial.options})
    for name in flags.by:
        if name not in options:
            raise must("--by", "options of these trials", name, nearest(name, options))


def choose(trials: Sequence[Finished], compared: Sequence[str], metric: str) -> list[Chosen]:
    """What every policy chooses among trainings of each kind, in every seed by itself."""
    kinds: dict[tuple[str, ...], list[Finished]] = {}
    for trial in trials:
        kinds.setdefault(tuple(_word(trial.options.get(name)) for name in compared), []).append(trial)
    found = [_chosen(dict(zip(compared, kind, strict=True)), those, metric) for kind, those in kinds.items()]
    return sorted([*found, *_averages(found, kinds.values())], key=lambda each: tuple(each.kind.values()))


def _chosen(kind: Mapping[str, str], trials: Sequence[Finished], metric: str) -> Chosen:
    seeds: dict[int, list[Finished]] = {}
    for trial in trials:
        seeds.setdefault(int(trial.options.get("seed") or 0), []).append(trial)
    choices: dict[Selection, dict[int, Choice]] = {policy: {} for policy in get_args(Selection)}
    for seed, those in seeds.items():
        for policy in choices:
            rows = [(_told(trial, policy), trial.trial) for trial in those]
            scored = [(row["selection_score"], row[metric], trial) for row, trial in rows if _scored(row, metric)]
            if scored:
                _, value, trial = max(scored, key=lambda each: (float(each[0] or 0), each[2]))
                choices[policy][seed] = Choice(trial, float(value or 0))
    return Chosen(kind, max(map(len, seeds.values())), choices)


def _averages(found: Sequence[Chosen], trials: Iterable[Sequence[Finished]]) -> list[Chosen]:
    """For every kind the mean over environments held out, of the seeds that have all of them.

    There is none where an environment of the data was never held out; tests on the data's own images do not count.
    """
    others: dict[tuple[str, ...], list[Chosen]] = {}
    known: dict[tuple[str, ...], set[str]] = {}
    held: dict[tuple[str, ...], set[str]] = {}
    for each, tried in zip(found, trials, strict=True):
        key = tuple(word for name, word in each.kind.items() if name != "held-out")
        out = tried[0].options.get("held-out")
        if isinstance(out, list | tuple) and out:
            others.setdefault(key, []).append(each)
            held.setdefault(key, set()).update(out)
            rows = tried[0].tables.get("environments", ())
            known.setdefault(key, set()).update(str(row["environment"]) for row in rows)
    means = list[Chosen]()
    for key, those in others.items():
        if len(those) < 2 or known[key] - held[key]:
            continue
        choices: dict[Selection, dict[int, Choice]] = {}
        for policy in get_args(Selection):
            each = [held.values(policy) for held in those]
            seeds = set.intersection(*map(set, each))
            choices[policy] = {seed: Choice("", sum(one[seed] for one in each) / len(each)) for seed in sorted(seeds)}
        means.append(Chosen({**those[0].kind, "held-out": AVERAGE}, max(one.trainings for one in those), choices))
    return means


def _told(trial: Finished, policy: Selection) -> Row:
    return next(row for row in trial.tables["policies"] if row["policy"] == policy)


def _scored(row: Row, metric: str) -> bool:
    return row.get("selection_score") is not None and row.get(metric) is not None


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "test images"
    return str(value)


def long(found: Sequence[Chosen]) -> list[dict[str, Any]]:
    """A row for each kind and policy, in numbers; ``trials`` are the ones chosen, by seed."""
    from engram.backbone.measures.intervals import interval  # SciPy takes a second that help should not

    rows = list[dict[str, Any]]()
    for each in found:
        for policy in get_args(Selection):
            values = each.values(policy)
            made = interval(list(values.values()), bounds=UNIT_BOUNDS["fraction"]) if values else None
            rows.append(
                {
                    **each.kind,
                    "policy": POLICIES[policy],
                    "mean": None if made is None else made.mean,
                    "low": None if made is None else made.low,
                    "high": None if made is None else made.high,
                    "seeds": len(values),
                    "trainings": each.trainings,
                    "trials": " ".join(choice.trial for choice in each.choices[policy].values()).strip(),
                }
            )
    return rows


def markdown(found: Sequence[Chosen], metric: str) -> str:
    """The policies side by side, as a Markdown table with aligned columns; what it shows stands above it."""
    rows = long(found)
    several = len(POLICIES)
    table = list[list[str]]()
    for each, start in zip(found, range(0, len(rows), several), strict=True):
        cells = [_cell(row) for row in rows[start : start + several]]
        seeds = max(row["seeds"] for row in rows[start : start + several])
        table.append([*each.kind.values(), *cells, str(seeds), str(each.trainings)])
    title = f"{metric} of what each policy chooses in every seed: mean over seeds, and 95 % interval"
    return f"{title}\n\n{as_markdown([*found[0].kind, *POLICIES.values(), 'seeds', 'trainings a seed'], table)}\n"


def _cell(row: Mapping[str, Any]) -> str:
    if row["mean"] is None:
        return "-"
    ends = "" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]"
    return f"{row['mean']:.3f}{ends}"
