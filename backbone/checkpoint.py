"""Saving and loading that survives kill -9 and notices a flipped byte.

Resume state is a torch file loaded with ``weights_only=True``; weights are safetensors. Both carry a sha256 beside
them, written last: a file without its manifest, or with another hash, does not count.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from backbone.errors import UserError
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
    """Save resume state as ``state-STEP.pt`` and keep the newest two."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"state-{step:09d}.pt"
    with path.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    manifest = {"step": step, "sha256": _sha256(path)}
    write_atomically(path.with_suffix(".json"), json.dumps(manifest).encode())
    for old in sorted(folder.glob("state-*.json"))[:-KEPT]:
        old.unlink()
        old.with_suffix(".pt").unlink(missing_ok=True)


def load_latest(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """The newest state whose bytes are what was saved, as (step, state); None when there is none."""
    for manifest_path in sorted(folder.glob("state-*.json"), reverse=True):
        path = manifest_path.with_suffix(".pt")
        try:
            manifest = json.loads(manifest_path.read_text())
            if _sha256(path) != manifest["sha256"]:
                raise ValueError("its bytes are not the ones that were saved")
            return manifest["step"], torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            log.warning("checkpoint %s is damaged (%s); going back to the one before", path.name, error)
    return None


def save_model(folder: Path, model: Classifier, about: Mapping[str, Any]) -> None:
    """Save a trained classifier as ``model.safetensors`` and ``model.json``.

    Args:
        about: what `backbone.nets.classifier.build` needs (``backbone``, ``backbone_options``, ``in_shape``,
            ``classes``: names) and where the training data came from (``dataset``, ...).
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
        UserError: there is no model, or its bytes are not the ones that were saved.
    """
    try:
        about = json.loads((folder / "model.json").read_text())
        data = (folder / "model.safetensors").read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f"a trained model must be in {folder}; got {error}. Train it again.") from None
    if hashlib.sha256(data).hexdigest() != about["sha256"]:
        raise UserError(
            f"{folder / 'model.safetensors'} must have the sha256 in model.json; got another. Train it again."
        )
    weights = load_safetensors(data)
    model = build(
        about["backbone"],
        about["backbone_options"],
        (about["in_shape"][0], about["in_shape"][1], about["in_shape"][2]),
        len(about["classes"]),
        weights["normalise.mean"],
        weights["normalise.std"],
    )
    model.load_state_dict(weights)
    return model.eval(), about


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
