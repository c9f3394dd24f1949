"""MLflow experiments of ours: ``engram`` for trials that were run alone, ``engram/SWEEP`` for each sweep.

A run can be in one experiment only and never leaves it: a trial that several sweeps share lives in the one that told it
first, and says by tags which others it belongs to. Sweeps that engram 0.8.0 told stay in ``engram``.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from engram.benchmarks.sink.address import without_secrets
from engram.benchmarks.sink.params import clean, within
from engram.benchmarks.sink.trouble import refuse

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

EXPERIMENT = "engram"
_NAME_SIZE = 500


def experiment_of(sweep: str) -> str:
    """The name of a sweep's experiment.

    >>> experiment_of("nets")
    'engram/nets'
    """
    return within(clean(f"{EXPERIMENT}/{sweep}"), _NAME_SIZE)


def all_of(client: MlflowClient) -> dict[str, str]:
    """The names of all our experiments that the store holds, by their ids."""
    found: dict[str, str] = {}
    for text in (f"name = '{EXPERIMENT}'", f"name LIKE '{EXPERIMENT}/%'"):
        token = None
        while True:
            page = client.search_experiments(filter_string=text, page_token=token)
            found |= {each.experiment_id: each.name for each in page}
            token = page.token
            if not token:
                break
    return found


def found_or_made(client: MlflowClient, name: str, place: str | None, uri: str) -> Experiment:
    """The experiment of that name; a new one has its files at ``place``, or where the server wants them.

    Raises:
        Refused: it was deleted.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            found = client.get_experiment(client.create_experiment(name, artifact_location=place))
        except Exception:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise  # else another machine made it in between
    see_active(found, uri)
    return found


def see_active(experiment: Experiment, uri: str) -> None:
    """See that the experiment was not deleted, which MLflow keeps and takes nothing for.

    Raises:
        Refused: it was.
    """
    if experiment.lifecycle_stage != "active":
        command = f"MLFLOW_TRACKING_URI={shlex.quote(without_secrets(uri))} mlflow experiments restore"
        remedy = f"Restore it ({command} --experiment-id {experiment.experiment_id}), or tell another --tracking-uri."
        raise refuse(f"the experiment {experiment.name}", "in the store", "one that was deleted in MLflow", remedy)
