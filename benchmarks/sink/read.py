"""Reads a sweep's trials back from an MLflow store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engram.backbone.options.spelling import by_flag, spell
from engram.benchmarks.records.meaning import by_todays_names
from engram.benchmarks.records.outcomes import Outcome
from engram.benchmarks.records.trials import Status
from engram.benchmarks.sink.state import ASIDE_TAG, CONFIG_TAG, metric_key

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_NO_RESULT = "it has no result in this store"
_ASKED = 100  # runs that a question names
_STATUS: dict[str, Status] = {"FINISHED": "done", "FAILED": "failed", "RUNNING": "running", "KILLED": "unfinished"}


def stored_sweep(
    client: MlflowClient, experiments: Sequence[str], sweep: str
) -> tuple[tuple[str, ...], list[Outcome], list[str]]:
    """(axes, trials, names of all sweeps) of the store; a trial that several machines ran counts once."""
    parents = list(runs_where(client, experiments, "tags.`engram.home` != ''"))
    known = sorted({run.data.tags["engram.sweep"] for run in parents if "engram.sweep" in run.data.tags})
    axes: dict[str, Any] = {}
    for run in parents:
        if run.data.tags.get("engram.sweep") == sweep:
            axes.update(_json(run.data.tags.get("engram.axes", "")))
    best: dict[str, Run] = {}
    for run in runs_where(client, experiments, f"tags.`engram.in.{metric_key(sweep)}` = 'yes'"):
        trial = run.data.tags.get("engram.trial", run.info.run_id)
        if trial not in best or (run.info.status == "FINISHED" != best[trial].info.status):
            best[trial] = run
    return tuple(map(spell, axes)), [_outcome(trial, run) for trial, run in sorted(best.items())], known


def runs_where(client: MlflowClient, experiments: Sequence[str], text: str) -> Iterator[Run]:
    """All runs of some experiments that a filter finds, newest first, page by page."""
    token = None
    while experiments:
        page = client.search_runs(list(experiments), text, page_token=token, order_by=["attributes.start_time DESC"])
        yield from page
        token = page.token
        if not token:
            return


def active_runs(client: MlflowClient, experiments: Sequence[str], runs: Sequence[str]) -> set[str]:
    """Those of ``runs`` that the experiments still hold."""
    found: set[str] = set()
    for first in range(0, len(runs), _ASKED):
        named = ", ".join(f"'{run}'" for run in runs[first : first + _ASKED])
        found |= {run.info.run_id for run in runs_where(client, experiments, f"attributes.run_id IN ({named})")}
    return found


def _outcome(trial: str, run: Run) -> Outcome:
    tags, status = run.data.tags, _STATUS.get(run.info.status, "unfinished")
    options = by_flag(_config(tags) or run.data.params)
    metrics = {key: value for key, value in run.data.metrics.items() if not key.startswith("final/")}
    # a final number whose name the ledger had taken
    metrics |= {key[6:]: value for key, value in run.data.metrics.items() if key.startswith("final/")}
    seconds, experiment = tags.get("engram.seconds"), tags.get("engram.experiment", "?")
    return Outcome(
        trial=trial,
        experiment=experiment,
        options=options,
        metrics=by_todays_names(experiment, options, metrics) if status == "done" else {},
        status=status,
        seconds=float(seconds) if seconds else None,
        why=tags.get("engram.error") or tags.get(ASIDE_TAG) or ("" if status == "done" else _NO_RESULT),
    )


def _config(tags: Mapping[str, str]) -> dict[str, Any]:
    """The trial's options, which may go on in further tags."""
    text = tags.get(CONFIG_TAG, "")
    for number in range(1, len(tags)):
        if _json(text):
            break
        text += tags.get(f"{CONFIG_TAG}.{number}", "")
    return _json(text)


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
