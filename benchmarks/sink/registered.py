"""The trial behind a model of MLflow's registry, fetched once: what ``--from models:/NAME@ALIAS`` names."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from engram.backbone.errors import UserError, must
from engram.backbone.saved.made import from_json
from engram.benchmarks.records.contents import Contents, still_holds
from engram.benchmarks.records.inside import is_name, open_inside
from engram.benchmarks.records.stored import read_json, write_json
from engram.benchmarks.records.trials import Record
from engram.benchmarks.records.waste import FETCHING
from engram.benchmarks.sink.address import address_of
from engram.benchmarks.sink.database import database_of, uri_of
from engram.benchmarks.sink.files import place_of
from engram.benchmarks.sink.registry import MANIFEST, MODEL
from engram.benchmarks.sink.sync import connect
from engram.benchmarks.sink.trouble import one_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ADDRESS = re.compile(r"models:/+([^/@]+)(?:/(\d+)|@([^/@]+))")
_WRITTEN = ("config.json", "provenance.json", "result.json")


def fetch(text: str, what: str, out: Path, home: Path, tracking_uri: str | None) -> Path:
    """The folder of the finished trial whose network is registered as ``text``.

    It is the one in ``out`` where that has the very weights. Else it is made below ``home`` of the files that the
    trial's run has, each with the bytes it was finished with; its curves stay in the store.

    Args:
        what: which option named it, for errors.

    Raises:
        UserError: there is no such version, the store does not answer, or the files are not those of the trial.
    """
    uri = uri_of(out.resolve() / "mlflow.db") if tracking_uri is None else tracking_uri
    shown = f"{text} in {address_of(uri)}"
    match, path = _ADDRESS.fullmatch(text), database_of(uri)
    if match is None:
        raise must(what, "models:/NAME/VERSION or models:/NAME@ALIAS", text, "Name one that engram promote printed.")
    if path is not None and not path.exists():
        raise must(what, "in a store that exists", shown, "Name the store with --tracking-uri.")
    try:
        client = connect(uri, write=False)
        name, number, alias = match.groups()
        version = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
        trial, sha256 = version.tags.get("engram.trial"), version.tags.get("engram.sha256")
        if not (trial and sha256 and version.run_id and is_name(trial) and is_name(version.run_id)):
            raise must(what, "a model that engram promote registered", shown, "Promote the trial that it is of.")
        for folder in (out / "trials" / trial, home / version.run_id / trial):
            if _is(folder, sha256):
                return folder
        return _fetched(client, version.run_id, home / version.run_id / trial, sha256, what)
    except UserError:
        raise
    except Exception as error:  # whatever the store has against the name, or the disk against the files
        got = f"{shown} ({one_line(error)})"
        raise must(what, "a registered model that can be fetched", got, "Choose another one, or see to it.") from None


def _fetched(client: MlflowClient, run: str, place: Path, sha256: str, what: str) -> Path:
    """Put the files of a trial's run at ``place``, all of them or none; ``sha256``: of the weights."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=FETCHING, dir=place.parent) as scratch:
        folder = Path(scratch, place.name)
        folder.mkdir()
        for name in _WRITTEN:
            _download(client, run, name, folder)
        result = read_json(folder / "result.json")
        for name in map(str, result.get("artifacts", {}).values()):
            _download(client, run, name, folder)
        (folder / MODEL / MANIFEST).unlink(missing_ok=True)  # the registry's own
        # a ledger is no file of a run: without a word on it none is missed
        write_json(folder / "result.json", {key: value for key, value in result.items() if key != "ledger"})
        whole = still_holds(folder, result.get("content", ""), Contents())
        if not (whole and result["trial"] == place.name and _is(folder, sha256)):
            got = f"others in run {run}"
            raise must(what, f"the files that trial {place.name} was finished with", got, "Promote it again.")
        with contextlib.suppress(OSError):  # another process was first
            folder.rename(place)
    return place


def _download(client: MlflowClient, run: str, name: str, folder: Path) -> None:
    """Put an artifact of the run where it lay in the trial's folder."""
    target = folder / name
    if not target.resolve().is_relative_to(folder.resolve()):  # a stranger's result may name anything
        raise PermissionError(errno.EPERM, "leads out of its folder", name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as scratch:  # MLflow keeps the whole path, or its end alone
        shutil.move(client.download_artifacts(run, place_of(name), scratch), target)


def _is(folder: Path, sha256: str) -> bool:
    """Whether a folder holds a finished trial with these weights."""
    if Record(folder).status != "done":
        return False
    try:
        with open_inside(folder / MODEL, "model.json") as file:
            return from_json(file.read()).sha256 == sha256
    except (OSError, ValueError, UserError):
        return False
