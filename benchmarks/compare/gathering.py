"""What is compared: sweeps and single trials, put together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from engram.backbone.errors import must, nearest
from engram.backbone.options.spelling import spell
from engram.benchmarks.compare.gate import parse
from engram.benchmarks.compare.wanted import Wanted
from engram.benchmarks.drawing.tables import word
from engram.benchmarks.planning.naming import off_default
from engram.benchmarks.problems import Problems
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
        UserError: a line for each option and each value that no trial has.
    """
    wanted, names, problems = read_only(only), outcomes.option_names(), Problems()
    for option in wanted:
        if option not in names:
            problems.of(partial(_refuse, "about an option of the trials", option, nearest(option, names)))
    trials = outcomes.trials
    for option, texts in wanted.items():
        held = {word(trial.options.get(option)): trial.options.get(option) for trial in trials}
        as_list = ",".join(texts)  # a list is one value, with commas
        whole = {name for name, value in held.items() if means(as_list, value)}
        for text in () if whole or option not in names else texts:
            if not any(means(text, value) for value in held.values()):
                rule = f"a value of {option} that trials have"
                problems.of(partial(_refuse, rule, f"{option}={text}", nearest(text, sorted(held))))
        allowed = whole or {name for name, value in held.items() if any(means(text, value) for text in texts)}
        kept = [trial for trial in trials if word(trial.options.get(option)) in allowed]
        trials = kept or trials  # else nothing was left to look for the others in
    problems.require()
    return varying(replace(outcomes, trials=trials)) if wanted else outcomes


def _refuse(rule: str, got: str, hint: str) -> None:
    raise must("--only", rule, got, hint)


def means(text: str, value: Any) -> bool:
    """Whether a text of the command line stands for the value of an option.

    >>> means("0.010", 0.01), means("1e1", 10), means("true", True), means("none", None), means("1", True)
    (True, True, True, True, False)
    >>> means("0.010", "0.01"), means("0.5,1", [0.5, 1.0])
    (False, True)
    """
    if isinstance(value, list | tuple):
        parts = text.split(",") if text else []
        return len(parts) == len(value) and all(map(means, parts, value))
    if isinstance(value, bool) or value is None:
        return text.lower() == str(value).lower()
    if isinstance(value, str):
        return text == value
    try:
        return float(text) == value
    except (ValueError, OverflowError):
        return text == word(value)


def check_words(wanted: Wanted) -> None:
    """See that ``--only`` and ``--fail-if`` can be read, before any trial is.

    Raises:
        UserError: a line for each part that cannot.
    """
    problems = Problems()
    problems.of(lambda: read_only(wanted.only))
    problems.of(lambda: None if wanted.fail_if is None else parse(wanted.fail_if))
    problems.require()


def read_only(only: Iterable[str]) -> dict[str, list[str]]:
    """The texts of ``--only`` by the option that they are about.

    Raises:
        UserError: a line for each that is about none.
    """
    found: dict[str, list[str]] = {}
    option, problems = "", Problems()
    for item in only:
        head, equals, tail = item.partition("=")
        option = spell(head) if equals else option
        if option:
            found.setdefault(option, []).append(tail if equals else head)
        else:
            problems.of(partial(_refuse, "OPTION=VALUE", item, "Write: --only backbone=mlp"))
    problems.require()
    return found
