"""``engram sweep`` of a suite with a search."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engram.backbone.contract import Scalar
from engram.backbone.errors import UserError, must
from engram.backbone.registry import Registry
from engram.benchmarks.commands.flags import Running
from engram.benchmarks.commands.plans import check_name, planner_for
from engram.benchmarks.compare.choosing import Candidate, look_through, tested
from engram.benchmarks.drawing.numbers import span
from engram.benchmarks.drawing.tables import render, terminal_width
from engram.benchmarks.driving.data_checks import check_data
from engram.benchmarks.driving.device_checks import check_devices
from engram.benchmarks.driving.driver import propose
from engram.benchmarks.driving.proposing.search import Searching
from engram.benchmarks.driving.proposing.tpe import STARTUP, require_optuna
from engram.benchmarks.driving.setting import PlanOutcome, RunSetting
from engram.benchmarks.planning.plan import Planner, Trial
from engram.benchmarks.planning.space import Choice, draw, probes
from engram.benchmarks.planning.suite import Suite
from engram.benchmarks.records.history import values_of
from engram.benchmarks.records.layout import lock, sweep_dir
from engram.benchmarks.records.lease import LEASE, lease
from engram.benchmarks.records.meaning import bounds_of, declared
from engram.benchmarks.records.stored import held, write_json
from engram.benchmarks.records.trials import Record, read_sweep
from engram.benchmarks.saying import say

SHOWN = 10
"""Proposals that ``--dry-run`` shows."""


def first_proposals(suite: Suite, registry: Registry, planner: Planner) -> list[Trial]:
    """The trials of the first proposals of a search, those that others need included; says what comes after them.

    Raises:
        UserError: none of them can be.
    """
    search = suite.search
    assert search is not None
    most = SHOWN if search.trials is None else min(SHOWN, search.trials // len(suite.seeds))
    most = min(most, STARTUP) if search.method == "tpe" else most
    for axis in search.space:
        where = f" where {' and '.join(f'{name} is {value}' for name, value in axis.when.items())}" if axis.when else ""
        if isinstance(axis.values, Choice):
            said = f"one of {', '.join(map(str, axis.values.values))}"
        else:
            said = f"{axis.values.low} to {axis.values.high}{' by ratio' if axis.values.log else ''}"
        say(f"{axis.name}: {said}{where}")
    _plan_some(suite, registry, planner, [draw(search.space, search.seed, number) for number in range(most)])
    rest = {"random": "more are drawn as these", "halving": "more are drawn as these; the worse ones are given up"}
    then = rest.get(search.method, "what comes after them depends on their scores")
    say(f"the first {most} proposals, with every seed; {then}")
    return list(planner.trials.values())


def _plan_some(suite: Suite, registry: Registry, planner: Planner, points: Sequence[Mapping[str, Any]]) -> None:
    """Plan what can be of these options.

    Raises:
        UserError: nothing can: all reasons.
    """
    problems: dict[str, None] = {}
    for options in points:
        try:
            for seed in suite.seeds:
                planner.add(suite.experiment, suite.given(registry, options, seed))
        except UserError as error:
            problems |= dict.fromkeys(str(error).splitlines())
    if not planner.trials:
        raise UserError("\n".join(problems))


def carry_out_search(suite: Suite, registry: Registry, how: RunSetting) -> tuple[Mapping[str, Any], PlanOutcome]:
    """Run a search until its budget is used; the content of its plan.json, and what became of its trials.

    Raises:
        UserError: it cannot be, or it is not the one that was begun, or its data are not what they must be.
        Busy: another driver holds it.
    """
    search, folder = suite.search, sweep_dir(how.out, suite.name)
    assert search is not None
    check_name(suite, folder)
    if search.method == "tpe":
        require_optuna()
    if search.joules is not None and (how.ray or how.slurm):
        rule = "left out beside --ray and --slurm, whose machines are not measured"
        raise must("search.joules", rule, f"{search.joules:g}", "Give trials or hours.")
    planner = planner_for(registry, how)
    _plan_some(suite, registry, planner, [*probes(search.space), draw(search.space, search.seed, 0)])
    trials, what = list(planner.trials.values()), f"sweep {suite.name}"
    check_devices(trials, registry, how, suite)
    check_data(trials, registry, how)
    planner = planner_for(registry, how)  # what had to be fetched is there now
    with lock(folder / "lock", patience=0.0, what=what), lease(folder / LEASE, what):
        check_name(suite, folder)
        plan = _plan(suite)

        def publish(cells: Sequence[Mapping[str, Any]]) -> None:
            fresh = {
                **plan,
                "trials": list(cells),
                "axes": values_of(plan["axes"], [each["options"] for each in cells]),
            }
            if held(folder / "plan.json") != fresh:
                write_json(folder / "plan.json", fresh, durable=True)
            plan.update(fresh)

        proposer = Searching(suite, planner, registry, folder, publish)
        try:
            outcome = propose(proposer, how, suite.name)
            if not outcome.so_far and proposer.ended:
                say(f"the search ends: {proposer.ended}")
        finally:
            proposer.close()
            planner.sets.contents.save()
    if proposer.trouble:
        raise UserError(proposer.trouble)
    return plan, outcome


def _plan(suite: Suite) -> dict[str, Any]:
    assert suite.search is not None
    return {
        "name": suite.name,
        "path": suite.path,
        "suite": suite.text,
        "axes": {axis.name: [] for axis in suite.search.space},
        "seeds": list(suite.seeds),
        "trials": [],
        "search": {
            "method": suite.search.method,
            "objectives": [metric.name for metric in suite.search.objectives],
        },
    }


def finish_search(out: Path, plan: Mapping[str, Any], outcome: PlanOutcome, flags: Running) -> int:
    """Print what a search has tried, and what it chose with its test scores, or its JSON object."""
    sweep = read_sweep(out, str(plan["name"]))
    found = look_through(sweep)
    chosen = [_chosen(each) for each in found.chosen]
    if flags.json:
        fates = {trial: {"given_up": fate} for trial, fate in sweep.given_up.items()}
        trials = [_cell(record) | fates.get(record.trial, {}) for record in sweep.records]
        failures = [vars(failure) for failure in outcome.failures]
        print(json.dumps({"sweep": sweep.name, "trials": trials, "failures": failures, "chosen": chosen}))
        if outcome.so_far:
            say(outcome.so_far)
        return outcome.code
    rows = [
        {
            **record.options,
            "seed": record.seed,
            "trial": record.trial,
            "status": record.status,
            **{name: record.metrics.get(name) for name in sweep.objectives if record.status == "done"},
            **({"given up": sweep.given_up.get(record.trial, "")} if sweep.given_up else {}),
        }
        for record in sweep.records
    ]
    width = terminal_width()
    print(render(f"search {sweep.name}", rows, width))
    if chosen:
        what = "the best" if len(found.objectives) == 1 else "the Pareto front"
        print(render(f"{what} by {', '.join(found.objectives)}: means over {len(sweep.seeds)} seeds", chosen, width))
    say(outcome.so_far or f"{shlex.join(['engram', 'report', sweep.name, '--out', str(flags.out)])} shows them all")
    return outcome.code


def _cell(record: Record) -> dict[str, Any]:
    """A trial without what it says of test images, which is not looked at before the end."""
    hidden = tested(record.experiment, list(record.metrics)) if record.status == "done" else []
    metrics = {name: value for name, value in record.metrics.items() if name not in hidden}
    planned = {name: record.plan[name] for name in ("trial", "experiment", "options", "seed")}
    return {**planned, "status": record.status, "metrics": metrics if record.status == "done" else {}}


def _chosen(candidate: Candidate) -> dict[str, Scalar]:
    """A row of the table of what was chosen: options, objectives, and its test scores with their intervals."""
    from engram.backbone.measures.intervals import interval  # SciPy takes a second that plans should not

    experiment = candidate.records[0].experiment
    row: dict[str, Scalar] = {**candidate.options, **candidate.scores}
    promised = declared(experiment)
    known = [name for name in promised if all(name in record.metrics for record in candidate.records)]
    for name in tested(experiment, known):
        values = interval([record.metrics[name] for record in candidate.records], bounds=bounds_of(promised, name))
        row[name] = values.mean
        if values.low is not None:
            row[f"{name} 95 %"] = span(values.low, values.high, values.n)
    return row
