"""What is compared: sweeps and single trials, put together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from engram.backbone.errors import must, nearest
from engram.backbone.options.spelling import spell
from engram.benchmarks.drawing.tables import word
from engram.benchmarks.planning.naming import off_default
from engram.benchmarks.records.inside import is_name
from engram.benchmarks.records.outcomes import Outcome, Outcomes, from_sweep, outcome
from engram.benchmarks.records.trials import Record, find_trial, read_sweep, trial_names

SWEEP = "sweep"
"""The option that says which sweep a trial was asked for by, where there are several (then ``experiment``, too)."""
_ALONE = "-"


def gather(out: Path, names: Sequence[str]) -> Outcomes:
    """Sweeps (by name or folder) and finished trials (by id, the beginning of it, or folder) as one.

    Raises:
        UserError: one of them is neither.
    """
    return merged([_one(out, name) for name in names])


def _one(out: Path, name: str) -> Outcomes:
    path = Path(name).expanduser()
    if is_name(name) and (out / "sweeps" / name / "plan.json").is_file():
        return from_sweep(read_sweep(out, name))
    if (path / "plan.json").is_file():
        path = path.resolve()
        return from_sweep(read_sweep(path.parent.parent, path.name))
    if (path / "config.json").is_file() or any(name and trial.startswith(name) for trial in trial_names(out)):
        record = Record(find_trial(out, name, "compare")[1])
        axes = [axis for axis in off_default(record) or record.config if axis != "seed"]
        return Outcomes(record.trial, tuple(axes), [outcome(record)], alone=True)
    return from_sweep(read_sweep(out, name))  # which says what there is


def merged(parts: Sequence[Outcomes]) -> Outcomes:
    """Several as one, whose axes are those options of any of them in which trials differ, the sweep included.

    A trial that stands in two sweeps counts in both; twice in one, or twice alone, it counts once.
    """
    if len(parts) == 1:
        return replace(parts[0], axes=()) if parts[0].alone else parts[0]
    names = {id(part): _ALONE if part.alone else part.sweep for part in parts}
    found: dict[tuple[str, str], Outcome] = {}
    for part in parts:
        for trial in part.trials:
            told = {SWEEP: names[id(part)], "experiment": trial.experiment}
            named = replace(trial, options={**trial.options, **told})
            found.setdefault((names[id(part)], trial.trial), named)
    axes = dict.fromkeys([SWEEP, "experiment", *(axis for part in parts for axis in part.axes)])
    title = " + ".join(dict.fromkeys(part.sweep for part in parts))
    return varying(Outcomes(title, tuple(axes), [*found.values()]))


def varying(outcomes: Outcomes) -> Outcomes:
    """The same with those axes alone on which trials differ."""
    held = {axis: {word(trial.options.get(axis)) for trial in outcomes.trials} for axis in outcomes.axes}
    return replace(outcomes, axes=tuple(axis for axis in outcomes.axes if len(held[axis]) > 1))


def narrowed(outcomes: Outcomes, only: Iterable[str]) -> Outcomes:
    """The trials whose options have one of the values given: ``backbone=mlp``, or ``backbone=mlp`` and then ``lenet5``.

    Raises:
        UserError: no trial has such an option, or such a value of it.
    """
    wanted = _conditions(only)
    trials = outcomes.trials
    for option, values in wanted.items():
        if option not in outcomes.option_names():
            raise must("--only", "about an option of the trials", option, nearest(option, outcomes.option_names()))
        known = {word(trial.options.get(option)) for trial in trials}
        as_list = {",".join(values)}
        allowed = as_list if known & as_list else set(values)  # a list is one value, with commas
        strange = [value for value in values if value not in known and not known & as_list]
        if strange:
            hint = nearest(strange[0], sorted(known))
            raise must("--only", f"a value of {option} that trials have", f"{option}={strange[0]}", hint)
        trials = [trial for trial in trials if word(trial.options.get(option)) in allowed]
    return varying(replace(outcomes, trials=trials)) if wanted else outcomes


def _conditions(only: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    option = ""
    for item in only:
        head, equals, tail = item.partition("=")
        option = spell(head) if equals else option
        if not option:
            raise must("--only", "OPTION=VALUE", item, "Write: --only backbone=mlp")
        found.setdefault(option, []).append(tail if equals else head)
    return found
