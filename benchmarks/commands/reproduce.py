"""``engram reproduce``: run what somebody published, with their protocol, and judge our figure against theirs."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engram.backbone.contract import Target
from engram.backbone.errors import MissingData, UserError, nearest
from engram.backbone.options import Checker
from engram.backbone.options.spelling import by_flag
from engram.backbone.registry import Registry
from engram.benchmarks.commands.flags import Reproducing
from engram.benchmarks.commands.run import planner_for, ready, report_troubles
from engram.benchmarks.drawing.tables import render, terminal_width, typed
from engram.benchmarks.driving.driver import drive
from engram.benchmarks.driving.setting import Failure, PlanOutcome, RunSetting
from engram.benchmarks.given import Given
from engram.benchmarks.planning.config import experiment_config
from engram.benchmarks.planning.plan import Trial
from engram.benchmarks.records.meaning import bounds_of, declared, today
from engram.benchmarks.records.trials import Record
from engram.benchmarks.saying import say

if TYPE_CHECKING:
    from engram.backbone.measures.intervals import Interval


def run(given: Given[Reproducing]) -> int:
    """Run the named target or group, or all that can run here; 1: one could not be run, 3: one was missed."""
    words, flags, registry = given.words, given.flags, given.registry
    targets = registry.targets()
    chosen = {key: target for key, target in targets.items() if not words or is_in(key, words[0])}
    if words and not chosen:
        raise UserError(f"TARGET must be a known one; got {words[0]}. {nearest(words[0], targets)}")
    how = ready(flags, given.argv, flags.workers)
    rows = judge(list(chosen.values()), registry, how, flags)
    if flags.json:
        print(json.dumps({"targets": rows}))
    else:
        for target in chosen.values():
            note = f"; {target.note}" if target.note else ""
            say(f"{target.name}: {target.experiment} {_words(target)}; {target.protocol}; {_sources(target)}{note}")
        print(render("targets", rows, terminal_width()) if rows else "no target is registered")
    verdicts = {row["verdict"] for row in rows}
    failed = "failed" in verdicts or (bool(words) and not verdicts.isdisjoint(("no data", "no GPU")))
    return 1 if failed else 3 if any(verdict.startswith("missed") for verdict in verdicts) else 0


def is_in(name: str, group: str) -> bool:
    """Whether a target is the one named, or one of the group whose beginning is named.

    >>> is_in("continual/split-mnist/task-si", "continual/split-mnist"), is_in("continual/x", "continual")
    (True, True)
    >>> is_in("continual/split-mnist", "continual/split")
    False
    """
    return name == group or name.startswith(group.rstrip("/") + "/")


def judge(targets: Sequence[Target], registry: Registry, how: RunSetting, flags: Reproducing) -> list[dict[str, Any]]:
    """Run targets over their seeds, all trials of all of them as one plan; one row of the table for each."""
    planner = planner_for(registry, how)
    able = [target for target in targets if not target.needs_gpu] if _without_gpu(targets, flags) else targets
    wanted = {
        target.name: [
            planner.add(target.experiment, options_of(target, seed, registry)).id
            for seed in target.seeds[: flags.seeds]
        ]
        for target in able
    }
    planner.sets.contents.save()
    told = list(dict.fromkeys(key for target in able for key in target.options))
    lost = _without_data(list(planner.trials.values()), registry, how)
    outcome = drive([trial for trial in planner.trials.values() if trial.id not in lost], how, None, told)
    report_troubles(outcome, flags)
    for line in dict.fromkeys(lost.values()):
        say(f"engram: {line}")
    if outcome.so_far:
        say(outcome.so_far)
    if outcome.signal is not None:
        raise KeyboardInterrupt
    outcome.failures += [Failure(trial, "data", line) for trial, line in lost.items()]
    return [_row(target, wanted.get(target.name), outcome, how) for target in targets]


def _without_data(trials: Sequence[Trial], registry: Registry, how: RunSetting) -> dict[str, str]:
    """Why trials cannot begin, by id: files of their data, or of the data of a trial that they need, are not there."""
    missing: dict[str, str] = {}
    for name in dict.fromkeys(name for trial in trials for name, found in trial.data.items() if found is None):
        try:
            registry.files(name, root=how.data_root)
        except MissingData as error:
            missing[name] = str(error)
        except UserError:  # the trial itself says what is wrong with files that are there
            continue
    lost: dict[str, str] = {}
    for trial in trials:  # each comes after those it needs
        why = [missing[name] for name in trial.data if name in missing] + [
            lost[need] for need in trial.needs if need in lost
        ]
        if why:
            lost[trial.id] = why[0]
    return lost


def _without_gpu(targets: Sequence[Target], flags: Reproducing) -> bool:
    if not any(target.needs_gpu for target in targets):
        return False
    from engram.backbone.hardware import choose_device  # torch takes seconds that other targets need not wait for

    return choose_device(flags.device) == "cpu"


def _row(target: Target, trials: list[str] | None, outcome: PlanOutcome, how: RunSetting) -> dict[str, Any]:
    """A row of the table; ``trials`` is None where there is no GPU for them.

    A verdict on some of the seeds is one "so far".
    """
    present = None if target.present is None else target.present.value
    figures = {"published": target.value, "present": present, "tolerance": target.tolerance}
    row = {"target": target.name, "metric": metric_of(target), **figures}
    nothing = {**row, "ours": None, "low": None, "high": None, "n": 0, "verdict": "", "settled": None}
    if trials is None:
        return {**nothing, "verdict": "no GPU"}
    metric = metric_of(target)
    found = [Record(how.out / "trials" / trial).metrics.get(metric) for trial in trials]
    values = [value for value in found if value is not None and math.isfinite(value)]
    if len(values) < len(trials):
        mine = [failure for failure in outcome.failures if failure.trial in trials]
        kinds = {failure.kind for failure in mine}
        no_data = target.needs_data and bool(kinds) and kinds <= {"data", "needs"}
        return {**nothing, "verdict": "no data" if no_data else "failed"}
    from engram.backbone.measures.intervals import interval  # SciPy takes a second that help should not

    ours = interval(values, bounds=bounds_of(declared(target.experiment), metric))
    verdict, settled = judged(target, ours)
    verdict += " so far" if len(values) < len(target.seeds) else ""
    return {
        **row,
        "ours": ours.mean,
        "low": ours.low,
        "high": ours.high,
        "n": ours.n,
        "verdict": verdict,
        "settled": settled,
    }


def options_of(target: Target, seed: int, registry: Registry) -> dict[str, Any]:
    """The values a target gives, by field; options of named things are written ``backbone.width``."""
    cls = experiment_config(registry, target.experiment)
    checker = Checker(registry, lambda name: name, f"Mend the target {target.name}.")
    given = checker.check(cls, {**target.options, "seed": seed})
    checker.require()
    return given


def metric_of(target: Target) -> str:
    """What the metric it is judged by is called today."""
    return today(target.experiment, by_flag(target.options), target.metric)


def judged(target: Target, ours: Interval) -> tuple[str, bool]:
    """Whether our mean is "reproduced", "missed, worse" or "missed, better", and whether that is settled.

    It is not where the interval is wider than the tolerance and holds some of both.
    """
    meaning = declared(target.experiment).get(metric_of(target))
    direction = "max" if meaning is None else meaning.direction

    def side(value: float) -> int:
        """-1: worse than their figure by more than the tolerance; 1: better, where that counts."""
        better = value - target.judged_by if direction == "max" else target.judged_by - value
        return -1 if better < -target.tolerance else int(target.exact and better > target.tolerance)

    settled = True
    if ours.low is not None and ours.high is not None:
        wide = ours.high - ours.low > 2 * target.tolerance
        settled = not wide or side(ours.low) == side(ours.mean) == side(ours.high)
    return {-1: "missed, worse", 0: "reproduced", 1: "missed, better"}[side(ours.mean)], settled


def _sources(target: Target) -> str:
    """Who gives which figure, and since when.

    >>> kind = {"name": "t", "experiment": "e", "options": {}, "metric": "m", "seeds": (0,), "protocol": "p"}
    >>> _sources(Target(**kind, value=0.5, tolerance=0.1, source="A", date="2020", minutes=1))
    '0.5 by A (2020)'
    """
    date = f" ({target.date})" if target.date else ""
    said = f"{target.value:g} by {target.source}{date}"
    if target.present is not None:
        said += f"; judged by {target.present.value:g}, by {target.present.source} ({target.present.date})"
    return f"{said}; two-sided" if target.exact else said


def _words(target: Target) -> str:
    """Its options as one types them."""
    return shlex.join(typed(by_flag(target.options)))
