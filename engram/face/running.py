"""``engram.train``, ``engram.run`` and ``engram.sweep``: the runner from Python, on the same trials as from a shell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from engram.backbone.errors import TrialError, UserError, must
from engram.backbone.options import Checker
from engram.backbone.options.schema import schema
from engram.backbone.registry import Registry
from engram.benchmarks.commands.flags import Sweeping
from engram.benchmarks.commands.run import carry_out, carry_out_suite, ready, report_troubles
from engram.benchmarks.driving.setting import Failure, PlanOutcome
from engram.benchmarks.planning.config import experiment_config, to_toml
from engram.benchmarks.planning.suite import check_suite, load_suite
from engram.benchmarks.records.trials import Record
from engram.face.results import FinishedSweep, FinishedTrial

_MENDED = ("user", "data", "busy")
"""Kinds of failures that whoever asked can mend."""


def train(backbone: str, dataset: str, **options: Any) -> FinishedTrial:
    """Train a network: `run` of ``backbone.train``. ``engram.train("lenet5", "digits").load()`` is a trained one.

    >>> import engram
    >>> engram.train("lenet5", "digits", learning_rate=0.1)
    Traceback (most recent call last):
    engram.backbone.errors.UserError: option must be one of those offered; got learning-rate. ...
    """
    return run("backbone.train", backbone=backbone, dataset=dataset, **options)


def run(
    experiment: str,
    *,
    out: str | Path = "runs",
    data_root: str | Path | None = None,
    download: bool = False,
    device: str = "auto",
    tracking_uri: str | None = None,
    ray: str | None = None,
    slurm: str | None = None,
    cores: int | None = None,
    gpus: int | None = None,
    devices: int = 1,
    memory: str | None = None,
    time: str | None = None,
    retries: int = 0,
    **options: Any,
) -> FinishedTrial:
    """Run an experiment as ``engram run`` does: what is done already is not done again, what was killed is resumed.

    Args:
        experiment: its name, see ``engram list experiments``.
        out, data_root, download, device, tracking_uri, ray, slurm, cores, gpus, devices, memory, time, retries: as the
            flags of these names.
        options: the experiment's, by the names in ``engram run EXPERIMENT --help`` with underscores; those of a thing
            as a dictionary: ``backbone_options={"width": 0.5}``. ``from_trial`` stands for ``--from``, and takes a
            trial as well.

    Raises:
        UserError: a line for everything that is wrong, before anything runs; or data that are not what they must be.
        TrialError: the trial failed.

    >>> import engram
    >>> engram.run("backbone.train", backbone="lenet", epochs=0)
    Traceback (most recent call last):
    engram.backbone.errors.UserError: backbone must be a registered name; got 'lenet'. Did you mean lenet5? ...
    """
    registry = Registry.discover()
    cls = experiment_config(registry, experiment)
    checker = Checker(registry, str, f"See: engram run {experiment} --help")
    where = {"ray": ray, "slurm": slurm, "cores": cores, "gpus": gpus, "devices": devices}
    limits = {"memory": memory, "time": time, "retries": retries}
    flags = _flags(checker, out, data_root, download, device, tracking_uri, {**where, **limits})
    fields = {option.field: option.name for option in schema(cls) if option.options_of is None}
    given = {fields.get(name, name): _plain(value) for name, value in options.items()}
    checked = checker.check(cls, given)
    checker.require()
    how = ready(flags, ["engram.run", experiment])
    trial, outcome = carry_out(experiment, checked, registry, how)
    _require_done(outcome, flags)
    return FinishedTrial.read(trial.folder)


def sweep(
    suite: str | Path | Mapping[str, Any],
    *,
    workers: int | None = None,
    out: str | Path = "runs",
    data_root: str | Path | None = None,
    download: bool = False,
    device: str = "auto",
    tracking_uri: str | None = None,
    ray: str | None = None,
    slurm: str | None = None,
    cores: int | None = None,
    gpus: int | None = None,
    devices: int = 1,
    memory: str | None = None,
    time: str | None = None,
    retries: int = 0,
) -> FinishedSweep:
    """Run a grid of options and seeds, or a search, as ``engram sweep`` does.

    Args:
        suite: the path of a TOML file, or its content: ``name``, ``experiment``, ``seeds``, ``options``, ``grid`` or
            ``search``.
        workers: trials at once; by default one, on a cluster as many as fit.
        out, data_root, download, device, tracking_uri, ray, slurm, cores, gpus, devices, memory, time, retries: as the
            flags of these names.

    Raises:
        UserError: a line for everything that is wrong, before anything runs; or data that are not what they must be.
        TrialError: trials failed; the others are done, and the same call does not do them again.

    >>> import engram
    >>> suite = {"name": "widths", "experiment": "backbone.train", "seeds": 3,
    ...          "options": {"backbone": "mlp", "epochs": 1}, "grid": {"backbone.widht": [0.5, 1.0]}}
    >>> engram.sweep(suite)
    Traceback (most recent call last):
    engram.backbone.errors.UserError: option must be one of those offered; got backbone.widht. Did you mean ...
    """
    registry = Registry.discover()
    checker = Checker(registry, str, "See: help(engram.sweep)")
    where = {"workers": workers, "ray": ray, "slurm": slurm, "cores": cores, "gpus": gpus, "devices": devices}
    limits = {"memory": memory, "time": time, "retries": retries}
    flags = _flags(checker, out, data_root, download, device, tracking_uri, {**where, **limits})
    if isinstance(suite, Mapping):
        if not suite.get("name"):
            raise must("a suite", "given with a name", "none", 'Write {"name": "...", ...}.')
        checked = check_suite(suite, to_toml(suite), Path(str(suite["name"])), registry)
        checked = replace(checked, path="engram.sweep")
    else:
        checked = load_suite(Path(suite), registry)
    how = ready(flags, ["engram.sweep", checked.name], flags.workers)
    plan, outcome = carry_out_suite(checked, registry, how)
    _require_done(outcome, flags)
    folders = [how.out / "trials" / cell["trial"] for cell in plan["trials"]]
    trials = tuple(FinishedTrial.read(folder) for folder in folders if Record(folder).status == "done")
    return FinishedSweep(checked.name, how.out, tuple(checked.axes), trials)


def _flags(
    checker: Checker,
    out: str | Path,
    data_root: str | Path | None,
    download: bool,
    device: str,
    tracking_uri: str | None,
    more: Mapping[str, Any],
) -> Sweeping:
    """The flags of a run, checked as those of the command line; ``more``: on what it runs, and its limits.

    Raises:
        UserError: one line for each that cannot be.
    """
    given = {"out": str(out), "data-root": None if data_root is None else str(data_root), "download": download}
    given |= {"device": device, "tracking-uri": tracking_uri, **more}
    flags = checker.build(Sweeping, given)
    checker.problems += flags.problems() if flags else []
    if flags is None or checker.problems:
        raise UserError("\n".join(checker.problems))
    return flags


def _plain(value: Any) -> Any:
    return str(value.folder) if isinstance(value, FinishedTrial) else str(value) if isinstance(value, Path) else value


def _require_done(outcome: PlanOutcome, flags: Sweeping) -> None:
    """Raise what the command line would print and end with."""
    if outcome.signal is not None:
        raise KeyboardInterrupt
    if outcome.halted:
        raise TrialError(outcome.halted)
    failures = [failure for failure in outcome.failures if failure.kind != "needs"]
    if not failures:
        report_troubles(outcome, flags)  # of the tracking store alone: they cost no result
        return
    text = "\n".join(_said(failure, alone=len(failures) == 1) for failure in failures)
    if all(failure.kind in _MENDED for failure in failures):
        raise UserError(text)
    raise TrialError(text)


def _said(failure: Failure, alone: bool) -> str:
    return failure.message if alone else f"trial {failure.trial}: {failure.message}"
