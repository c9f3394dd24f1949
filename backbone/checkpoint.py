"""Saving and loading that survives kill -9 and notices a flipped byte.

Resume state is a torch file loaded with ``weights_only=True``; weights are safetensors. Both carry a sha256 beside
them, written last: a file without its manifest, or with another hash, does not count.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from backbone.errors import UserError, must
from backbone.nets.classifier import Classifier, build

log = logging.getLogger(__name__)
KEPT = 2


def write_atomically(path: Path, data: bytes) -> None:
    """Write all of it or nothing, and have it on the disk before the name appears."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def save_state(folder: Path, step: int, state: Mapping[str, Any]) -> None:
    """Save resume state as ``state-STEP.pt`` and keep the newest two.

    States of later steps can only be damaged ones that were passed over; they go, or they would displace good ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"state-{step:09d}.pt"
    with path.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    manifest = {"step": step, "sha256": _sha256(path)}
    write_atomically(path.with_suffix(".json"), json.dumps(manifest).encode())
    kept = sorted(stem for stem in {each.stem for each in folder.glob("state-*.json")} if stem <= path.stem)[-KEPT:]
    for old in folder.glob("state-*"):
        if old.stem not in kept:
            old.unlink()


def load_latest(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """The newest state whose bytes are what was saved, as (step, state); None when there is none."""
    for manifest_path in sorted(folder.glob("state-*.json"), reverse=True):
        path = manifest_path.with_suffix(".pt")
        try:
            manifest = json.loads(manifest_path.read_text())
            if _sha256(path) != manifest["sha256"]:
                raise ValueError("its bytes are not the ones that were saved")
            if f"state-{manifest['step']:09d}" != path.stem:
                raise ValueError("its manifest is of another step")
            return manifest["step"], torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, ValueError, TypeError, LookupError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            log.warning("checkpoint %s is damaged (%s); going back to the one before", path.name, error)
    return None


def save_model(folder: Path, model: Classifier, about: Mapping[str, Any]) -> None:
    """Save a trained classifier as ``model.safetensors`` and ``model.json``.

    Args:
        about: what `backbone.nets.classifier.build` needs (``backbone``, ``backbone_options``, ``adapters``,
            ``in_shape``, ``classes``: names) and where the training data came from (``dataset``, ...).
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    data = save_safetensors(weights)
    manifest = {**about, "sha256": hashlib.sha256(data).hexdigest()}
    write_atomically(folder / "model.safetensors", data)
    write_atomically(folder / "model.json", json.dumps(manifest, indent=1).encode())


def load_model(folder: Path) -> tuple[Classifier, dict[str, Any]]:
    """Load what `save_model` wrote, in evaluation mode, with its manifest.

    Raises:
        UserError: there is no model, its bytes are not the ones that were saved, they fit no registered network, or the
            manifest says (``incomplete``) why the network alone is not what was trained.
    """
    try:
        about = json.loads((folder / "model.json").read_text())
        data = (folder / "model.safetensors").read_bytes()
        if hashlib.sha256(data).hexdigest() != about["sha256"]:
            raise ValueError("weights with another sha256 than model.json says")
        if about.get("incomplete"):
            what = f"a model in {folder}"
            raise must(what, "one that computes by itself", about["incomplete"], "Its own trial has its accuracies.")
        return _rebuild(about, load_safetensors(data)).eval(), about
    except (OSError, ValueError, TypeError, LookupError, RuntimeError) as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"a whole trained model must be in {folder}; got {what}. Train it again.") from error


def _rebuild(about: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Classifier:
    model = build(
        about["backbone"],
        about["backbone_options"],
        (about["in_shape"][0], about["in_shape"][1], about["in_shape"][2]),
        len(about["classes"]),
        weights["normalise.mean"],
        weights["normalise.std"],
        adapters=about.get("adapters", ()),  # models saved before there were adapters have none
        saved=weights,
    )
    model.load_state_dict(weights)
    return model


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
