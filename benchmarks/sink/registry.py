"""A trial's network in MLflow's model registry: files of the trial's own run, with a signature, and nothing pickled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram.backbone.errors import UserError, must
from engram.benchmarks.records.trials import Record
from engram.benchmarks.sink.files import files_of
from engram.benchmarks.sink.said import TAG_SIZE, run_name
from engram.benchmarks.sink.sync import Sink, connect
from engram.benchmarks.sink.trouble import one_line

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from engram.backbone.saved.made import Made

MODEL = "model"
"""Where a trial's network lies, in its folder and in its run."""
MANIFEST = "MLmodel"
"""MLflow's own file in the run's."""
_FILES = (f"{MODEL}/model.json", f"{MODEL}/model.safetensors")


@dataclass(frozen=True)
class Promoted:
    """A version of a registered model; ``fresh``: it was made by this very call."""

    name: str
    version: str
    fresh: bool


def promote(out: Path, folder: Path, name: str, alias: str | None, tracking_uri: str | None) -> Promoted:
    """Register the network of a finished trial, once, and let ``alias`` mean it.

    Raises:
        UserError: the trial has no whole network, or the store does not take it or does not answer.
    """
    if {"'", '"', "\\", "`"} & set(name):  # MLflow cannot be asked for these
        raise must("NAME", "without quotation marks and backslashes", repr(name), "Choose another name.")
    record, made = Record(folder), made_of(folder)
    sink = Sink(out, tracking_uri)
    told = sink.sync([record.trial], None, now=True)
    if why := told.message or next(iter(sink.refused.values()), ""):
        raise must("--tracking-uri", "a store that takes the trial", f"{sink.address} ({why})", "Then promote again.")
    run = sink.run_of(record.trial)
    try:
        client = connect(sink.uri)
        return _register(client, client.get_run(run), record, made, name, alias)
    except UserError:
        raise
    except Exception as error:  # whatever the store has against the name, the alias or the run
        got = f"{name}{f' as {alias}' if alias else ''} ({one_line(error)})"
        raise must(
            "the registered model", "one that the store takes", got, "Choose another name, or see to it."
        ) from None


def made_of(folder: Path) -> Made:
    """What the network in a trial's folder is made of, once it is known to be whole.

    Raises:
        UserError: there is none, or it cannot be used by itself.
    """
    record = Record(folder)
    found, left = files_of(record)
    if lacking := [name for name in _FILES if name not in found]:
        got = f"{record.trial} of {record.experiment} ({lacking[0]}: {left.get(lacking[0], 'it has none')})"
        raise must("TRIAL", "one that saved a network", got, "Take one that trains or converts.")
    from engram.backbone.saved.model import load_model

    return load_model(folder / MODEL)[1]


def _register(client: MlflowClient, run: Run, record: Record, made: Made, name: str, alias: str | None) -> Promoted:
    if run.info.lifecycle_stage != "active":
        raise must("TRIAL", "one whose run is in MLflow", f"{record.trial}, deleted there", "Restore its run first.")
    tags = {"engram.trial": record.trial, "engram.sha256": made.sha256}
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    known = client.search_model_versions(f"name = '{name}'")
    same = [each for each in known if tags.items() <= each.tags.items() and each.run_id == run.info.run_id]
    if same:
        version = str(same[0].version)
    else:
        client.log_text(run.info.run_id, _manifest(run, made), f"{MODEL}/{MANIFEST}")
        numbers = {f"metric.{metric}": repr(value) for metric, value in record.metrics.items()}
        about = {"engram.experiment": record.experiment, "engram.input_shape": "x".join(map(str, made.in_shape))}
        about |= {} if made.data is None else {"dataset": made.data.name, "data.sha256": made.data.fingerprint}
        said = {key: text[:TAG_SIZE] for key, text in (tags | about | numbers).items()}
        source, words = f"{run.info.artifact_uri}/{MODEL}", run_name(record)
        version = str(client.create_model_version(name, source, run.info.run_id, said, description=words).version)
    if alias is not None:
        client.set_registered_model_alias(name, alias, version)
    return Promoted(name, version, not same)


def _manifest(run: Run, made: Made) -> str:
    """MLflow's ``MLmodel``: images in, a score for each class out. It names no code that would be run."""
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    def tensor(*shape: int) -> Schema:
        return Schema([TensorSpec(np.dtype("float32"), (-1, *shape))])

    signature = ModelSignature(tensor(*made.in_shape), tensor(len(made.classes)))
    model = Model(artifact_path=MODEL, run_id=run.info.run_id, signature=signature)
    flavor: dict[str, Any] = {"data": ".", "weights": "model.safetensors", "sha256": made.sha256}
    return model.add_flavor("engram", **flavor).to_yaml()
