"""``engram run`` and ``engram sweep``: plan, drive, and say what came of it."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engram.backbone.options.inherited import made_from
from engram.backbone.registry import Registry
from engram.benchmarks.commands.flags import Planning, Running, Sweeping
from engram.benchmarks.commands.plans import check_name, planner_for
from engram.benchmarks.commands.searching import carry_out_search, finish_search, first_proposals
from engram.benchmarks.drawing.tables import render, terminal_width
from engram.benchmarks.driving.cluster_checks import check_cluster
from engram.benchmarks.driving.data_checks import check_data
from engram.benchmarks.driving.device_checks import check_devices
from engram.benchmarks.driving.driver import drive
from engram.benchmarks.driving.launch.contract import Resources
from engram.benchmarks.driving.setting import PlanOutcome, RunSetting
from engram.benchmarks.given import Given
from engram.benchmarks.planning.config import experiment_config, written
from engram.benchmarks.planning.naming import labels
from engram.benchmarks.planning.plan import Planner, Trial
from engram.benchmarks.planning.suite import Suite, load_suite
from engram.benchmarks.records.layout import lock, prepare, sweep_dir
from engram.benchmarks.records.lease import LEASE, lease
from engram.benchmarks.records.meaning import declared
from engram.benchmarks.records.memory import Memory, memory_of
from engram.benchmarks.records.quantities import parse_duration, parse_size
from engram.benchmarks.records.stored import held, write_json
from engram.benchmarks.records.trials import Record
from engram.benchmarks.saying import say
from engram.benchmarks.sink.trouble import refusals, sync_command


def run(given: Given[Planning]) -> int:
    """``engram run EXPERIMENT``."""
    flags, options, registry = given.flags, given.options, given.registry
    assert options is not None  # the command takes an experiment
    how = (setting if flags.dry_run else ready)(flags, given.argv)
    if flags.dry_run:
        planner = planner_for(registry, how, dry=True)
        planner.add(given.words[0], options)
        told = written(experiment_config(registry, given.words[0]), options)
        return show_plan(list(planner.trials.values()), told, flags.json, planner.memory)
    return _finish_run(*carry_out(given.words[0], options, registry, how), flags)


def carry_out(
    experiment: str, given: Mapping[str, Any], registry: Registry, how: RunSetting
) -> tuple[Trial, PlanOutcome]:
    """Plan a trial and what it needs from checked values by field, and run what is not done.

    Raises:
        UserError: it cannot be planned, or its data are not what they must be.
    """
    planner = planner_for(registry, how)
    trial = planner.add(experiment, given)
    trials = list(planner.trials.values())
    planner.sets.contents.save()
    check_devices(trials, registry, how)
    check_data(trials, registry, how)
    return trial, drive(trials, how, None, written(experiment_config(registry, experiment), given))


def ready(flags: Running, argv: Sequence[str], workers: int | None = None) -> RunSetting:
    """As `setting`, once it is known that the cluster takes trials; then the output folder is made.

    Raises:
        UserError: it takes none, or the folder cannot be written.
    """
    how = setting(flags, argv, workers)
    check_cluster(how)
    prepare(flags.out)
    return how


def setting(flags: Running, argv: Sequence[str], workers: int | None = None) -> RunSetting:
    without = flags.devices > 1 and flags.gpus == 0
    return RunSetting(
        out=flags.out.resolve(),
        data_root=flags.root,
        argv=argv,
        download=flags.download,
        device="cpu" if without else flags.device,
        devices=flags.devices,
        tracking_uri=flags.tracking_uri,
        workers=workers,
        ray=flags.ray,
        slurm=flags.slurm,
        resources=_resources(flags),
        retries=flags.retries,
    )


def _resources(flags: Running) -> Resources:
    """What each trial gets: one that several processes share, a core and a GPU for each of them."""
    cores, gpus = flags.cores, flags.gpus
    if flags.devices > 1:
        elsewhere = flags.ray is not None or flags.slurm is not None
        cores = flags.devices if cores is None and elsewhere else cores
        gpus = flags.devices if gpus is None and flags.device != "cpu" else gpus
    return Resources(
        cores=cores,
        gpus=gpus,
        memory=None if flags.memory is None else parse_size(flags.memory),
        seconds=None if flags.time is None else parse_duration(flags.time),
    )


def _finish_run(trial: Trial, outcome: PlanOutcome, flags: Planning) -> int:
    report_troubles(outcome, flags)
    record = Record(trial.folder)
    if record.status != "done":
        kinds = {failure.kind for failure in outcome.failures if failure.kind != "needs"}
        if outcome.so_far:
            say(outcome.so_far)
        by_kind = {"user": 2, "data": 2, "busy": 4}
        return by_kind.get(kinds.pop(), 1) if len(kinds) == 1 and outcome.signal is None else outcome.code
    if flags.json:
        print(json.dumps(public(record)))
        return 0
    for title, rows in record.result["tables"].items():
        print(render(title, rows, terminal_width()))
    print(render("metrics", [{"metric": metric, "value": value} for metric, value in record.metrics.items()]))
    say(f"{'already done: ' if trial.id in outcome.skipped else ''}{trial.folder}")
    return 0


def public(record: Record) -> dict[str, Any]:
    """What ``--json`` promises: a result with absolute paths, without what only the report draws."""
    result = record.result
    return {
        **{key: result[key] for key in ("experiment", "trial", "config")},
        "metrics": record.metrics,
        "tables": result["tables"],
        "artifacts": {name: str(record.folder / path) for name, path in result["artifacts"].items()},
    }


def report_troubles(outcome: PlanOutcome, flags: Running) -> None:
    """One line per failed trial, and one for each reason for which the tracking store is not complete."""
    for failure in outcome.failures:
        if outcome.halted and failure.kind == "disk":
            continue  # that was said
        for line in failure.message.splitlines():
            say(f"engram: trial {failure.trial} failed: {line}")
    again = sync_command(flags.out, flags.tracking_uri)
    for line in refusals(outcome.refused, again):
        say(f"engram: {line}")
    if outcome.untold:
        say(f"engram: not all trials are in MLflow yet ({outcome.untold}); {again} completes it")


def show_plan(trials: Sequence[Trial], axes: Sequence[str], as_json: bool, memory: Memory) -> int:
    """Print what would be run, a line for each trial; ``axes`` are the options that tell them apart.

    The id of a trial is not known before its data are there.
    """
    statuses = {
        trial.id: Record(trial.folder, memory=memory).status if trial.settled else "no data" for trial in trials
    }
    memory.save()
    ids = {trial.id: trial.id if trial.settled else None for trial in trials}
    if as_json:
        rows = [
            {"trial": ids[each.id], "status": statuses[each.id], "experiment": each.experiment, "config": each.config}
            for each in trials
        ]
        print(json.dumps({"trials": rows}))
        return 0
    names = labels(trials, axes)
    rows = [{"trial": ids[trial.id] or "-", "status": statuses[trial.id], "what": names[trial.id]} for trial in trials]
    counts = Counter(statuses.values())
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    print(render(f"{len(trials)} trial{'s' if len(trials) > 1 else ''}: {told}", rows, terminal_width()))
    return 0


def sweep(given: Given[Sweeping]) -> int:
    """``engram sweep SUITE.toml``."""
    (path,), flags, registry = given.words, given.flags, given.registry
    suite = load_suite(Path(path), registry)
    how = (setting if flags.dry_run else ready)(flags, given.argv, flags.workers)
    if flags.dry_run:
        planner = planner_for(registry, how, dry=True)
        trials = plan_suite(suite, planner)[0] if suite.search is None else first_proposals(suite, registry, planner)
        return show_plan(trials, list(suite.axes), flags.json, planner.memory)
    plan, outcome = carry_out_suite(suite, registry, how)
    if suite.search is None:
        return finish_sweep(how.out, plan, outcome, flags)
    report_troubles(outcome, flags)
    return finish_search(how.out, plan, outcome, flags)


def carry_out_suite(suite: Suite, registry: Registry, how: RunSetting) -> tuple[Mapping[str, Any], PlanOutcome]:
    """Plan a suite and run what is not done; the content of its plan.json, and what became of it.

    Raises:
        UserError: as `plan_suite` and `run_suite`, or its data are not what they must be.
        Busy: another driver holds the sweep.
    """
    if suite.search is not None:
        return carry_out_search(suite, registry, how)
    planner = planner_for(registry, how)
    trials, plan = plan_suite(suite, planner)
    planner.sets.contents.save()
    check_devices(trials, registry, how)
    check_data(trials, registry, how)
    return plan, run_suite(suite, trials, plan, how)


def plan_suite(suite: Suite, planner: Planner) -> tuple[list[Trial], dict[str, Any]]:
    """All trials of a suite, those that others need included, and the content of plan.json.

    Raises:
        UserError: as `Planner.add`, or another suite has this one's name.
    """
    check_name(suite, sweep_dir(planner.out, suite.name))
    cells: dict[str, dict[str, Any]] = {}
    others = [option.field for option, _ in made_from(experiment_config(planner.registry, suite.experiment))]
    order = sorted(suite.points, key=lambda point: any(point.given.get(name) is not None for name in others))
    trials = {id(point): planner.add(suite.experiment, point.given) for point in order}  # others may be from these
    for point in suite.points:
        trial = trials[id(point)]
        cell = {"trial": trial.id, "experiment": suite.experiment, "options": dict(point.options), "seed": point.seed}
        cells.setdefault(trial.id, cell)
    plan = {
        "name": suite.name,
        "path": suite.path,
        "suite": suite.text,
        "axes": {axis: list(values) for axis, values in suite.axes.items()},
        "seeds": list(suite.seeds),
        "trials": list(cells.values()),
    }
    return list(planner.trials.values()), plan


def run_suite(suite: Suite, trials: Sequence[Trial], plan: Mapping[str, Any], how: RunSetting) -> PlanOutcome:
    """Drive a sweep while holding its lock.

    Raises:
        Busy: another driver holds it.
        UserError: another suite took the name since it was planned.
    """
    folder = sweep_dir(how.out, suite.name)
    what = f"sweep {suite.name}"
    with lock(folder / "lock", patience=0.0, what=what), lease(folder / LEASE, what):
        check_name(suite, folder)
        if held(folder / "plan.json") != plan:
            write_json(folder / "plan.json", plan, durable=True)
        return drive(trials, how, suite.name, list(plan["axes"]))


def finish_sweep(out: Path, plan: Mapping[str, Any], outcome: PlanOutcome, flags: Running) -> int:
    """Print the table of a sweep, or its JSON object."""
    report_troubles(outcome, flags)
    why, skipped = {failure.trial: failure for failure in outcome.failures}, {*outcome.skipped}
    rows, memory = [], memory_of(out)
    for cell in plan["trials"]:
        record = Record(out / "trials" / cell["trial"], memory=memory)
        failure = why.get(cell["trial"])
        status = "skipped" if cell["trial"] in skipped else (failure.kind if failure else record.status)
        rows.append((cell, record, status))
    if flags.json:
        trials = [{**cell, "status": status, "metrics": record.metrics} for cell, record, status in rows]
        failures = [vars(failure) for failure in outcome.failures]
        print(json.dumps({"sweep": plan["name"], "trials": trials, "failures": failures}))
        if outcome.so_far:
            say(outcome.so_far)
        return outcome.code
    primary = _primary(str(plan["trials"][0]["experiment"]), [record for _, record, _ in rows])
    table = [
        {
            **cell["options"],
            "seed": cell["seed"],
            "trial": cell["trial"],
            "status": "done" if status == "skipped" else status,
        }
        | {metric: record.metrics.get(metric) for metric in primary}
        for cell, record, status in rows
    ]
    print(render(f"sweep {plan['name']}", table, terminal_width()))
    compare = shlex.join(["engram", "compare", str(plan["name"]), "--out", str(flags.out)])
    say(outcome.so_far or f"{len(outcome.skipped)} skipped; {compare} says which differ")
    return outcome.code


def _primary(experiment: str, records: Sequence[Record]) -> list[str]:
    """The metrics of an experiment that a table of its trials shows: the primary ones that they have."""
    metrics = list(declared(experiment).values())
    names = [metric.name for metric in metrics if metric.primary] or [metric.name for metric in metrics[:1]]
    return [name for name in names if any(name in record.metrics for record in records)] or names[:1]
