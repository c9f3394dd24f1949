"""What became of the trials of a sweep, from their folders or from an MLflow store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from engram.backbone.contract import Scalar
from engram.backbone.errors import must, nearest
from engram.backbone.options.spelling import spell
from engram.benchmarks.drawing.tables import word
from engram.benchmarks.problems import Problems
from engram.benchmarks.records.meaning import declared, today
from engram.benchmarks.records.trials import Record, Status, Sweep


@dataclass(frozen=True)
class Outcome:
    """One trial: its options by flag name, its final metrics when it is done, and why it is not when it is not."""

    trial: str
    experiment: str
    options: Mapping[str, Scalar]
    metrics: Mapping[str, float]
    status: Status
    seconds: float | None = None
    why: str = ""

    @property
    def seed(self) -> int | None:
        seed = self.options.get("seed")
        return seed if isinstance(seed, int) else None


@dataclass(frozen=True)
class Outcomes:
    """All trials of one sweep, or of several. ``axes`` are the options it varies, in the order of the suite."""

    sweep: str
    axes: tuple[str, ...]
    trials: list[Outcome] = field(default_factory=list)
    alone: bool = False
    """Whether it is one trial that was asked for by itself; ``axes`` are then the options that make it what it is."""
    objectives: tuple[str, ...] = ()
    """The metrics that a search goes by."""

    @property
    def experiment(self) -> str:
        return next((trial.experiment for trial in self.trials if trial.experiment != "?"), "?")

    @property
    def done(self) -> list[Outcome]:
        return [trial for trial in self.trials if trial.status == "done"]

    def metric_names(self) -> list[str]:
        return sorted({name for trial in self.done for name in trial.metrics})

    def option_names(self) -> list[str]:
        return sorted({name for trial in self.trials for name in trial.options})


def from_sweep(sweep: Sweep) -> Outcomes:
    """What became of the trials of a sweep that was read."""
    found = Outcomes(sweep.name, tuple(sweep.axes), [*map(outcome, sweep.records)], objectives=sweep.objectives)
    if sweep.memory is not None:
        sweep.memory.save()
    return found


def outcome(record: Record) -> Outcome:
    """One trial's folder as an outcome."""
    metrics = record.metrics if record.status == "done" else {}
    return Outcome(record.trial, record.experiment, record.config, metrics, record.status, record.seconds, record.why)


def choose_metric(outcomes: Outcomes, wanted: str | None) -> str:
    """The metric to compare by: a search's first objective, the experiment's primary one, or the one ``wanted``, by
    today's name or an older one.

    Raises:
        UserError: no finished trial has it.
    """
    found = outcomes.metric_names()
    if wanted is None:
        promised = declared(outcomes.experiment).values()
        meant = [*outcomes.objectives, *(metric.name for metric in promised if metric.primary)]
        name = next((name for name in meant if name in found), (found or [""])[0])
    else:
        names = {today(trial.experiment, trial.options, wanted) for trial in outcomes.done}
        name = names.pop() if wanted not in found and len(names) == 1 else wanted
    if name not in found:
        if not found:
            rule, got = "one with finished trials", f"{len(outcomes.trials)} unfinished"
            raise must(f"sweep {outcomes.sweep!r}", rule, got, "See: engram status")
        raise must("metric", f"one that sweep {outcomes.sweep!r} has", repr(name), nearest(name, found))
    return name


def one_for_each_seed(outcomes: Outcomes) -> None:
    """Refuse a sweep that holds several trials for one cell and seed: nobody could say which of them counts.

    Raises:
        UserError: naming the first two, and what they differ in.
    """
    found: dict[str, Outcome] = {}
    for trial in outcomes.trials:
        if trial.seed is None:  # a trial that has not begun may not say it yet
            continue
        cell = {axis: trial.options.get(axis) for axis in outcomes.axes} | {"seed": trial.seed}
        other = found.setdefault(json.dumps(cell, sort_keys=True), trial)
        if other is trial:
            continue
        both = {name: (other.options.get(name), trial.options.get(name)) for name in outcomes.option_names()}
        differ = ", ".join(f"{name} {word(one)} and {word(two)}" for name, (one, two) in both.items() if one != two)
        got = (
            f"{other.trial} and {trial.trial} for {', '.join(f'{axis} {word(value)}' for axis, value in cell.items())}"
        )
        raise must(
            f"the trials of sweep {outcomes.sweep!r}",
            "one for each cell and seed",
            f"{got} ({differ or 'nothing'} in them)",
            "Where the suite was edited, run the sweep or engram sync again: what left its plan leaves the store.",
        )


def choose_axes(outcomes: Outcomes, by: str | None) -> tuple[str, ...]:
    """The options that make the groups: those named in ``by`` (several: with commas), else all the sweep varies.

    Raises:
        UserError: a line for each that no trial has.
    """
    if by is None:
        return outcomes.axes
    problems = Problems()
    found = [problems.of(lambda name=name: option_of(outcomes, name, "--by")) for name in by.split(",")]
    problems.require()
    return tuple(name for name in found if name is not None)


def option_of(outcomes: Outcomes, name: str, flag: str) -> str:
    """An option by any of its spellings.

    Raises:
        UserError: no trial has it.
    """
    known = outcomes.option_names()
    if (spelled := spell(name.strip())) not in known:
        raise must(flag, "an option of the trials", repr(spelled), nearest(spelled, known))
    return spelled
