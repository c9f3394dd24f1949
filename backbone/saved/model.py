"""Trained networks on disk: ``model.safetensors`` and, written last and with its sha256, ``model.json``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from engram.backbone.atomic import write_atomically
from engram.backbone.contract import Kind, Named
from engram.backbone.errors import UserError, must
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.making import build
from engram.backbone.registry import SINGULAR, Registry
from engram.backbone.saved.bounds import bounded
from engram.backbone.saved.made import Made, from_json, to_json


def save_model(folder: Path, model: Classifier, made: Made) -> Made:
    """Save a trained classifier and how it is made; returns that with the sha256 of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    data = save_safetensors(weights)
    made = replace(made, sha256=hashlib.sha256(data).hexdigest())
    write_atomically(folder / "model.safetensors", data)
    write_atomically(folder / "model.json", to_json(made))
    return made


def load_model(folder: Path) -> tuple[Classifier, Made]:
    """Load what `save_model` wrote, in evaluation mode, and how it is made.

    Raises:
        UserError: there is no model, its bytes are not the ones that were saved, they fit no registered network,
            something it is made of is installed in another version, or it is ``incomplete``: the network alone is not
            what was trained.
    """
    try:
        made = from_json((folder / "model.json").read_bytes())
        data = (folder / "model.safetensors").read_bytes()
        if hashlib.sha256(data).hexdigest() != made.sha256:
            raise ValueError("weights with another sha256 than model.json says")
        if made.incomplete:
            what = f"a model in {folder}"
            raise must(what, "one that computes by itself", made.incomplete, "Its own trial has its accuracies.")
        return _rebuild(made, load_safetensors(data)).eval(), made
    except UserError:
        raise
    except Exception as error:  # a stranger's manifest may ask any network for anything
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"a whole trained model must be in {folder}; got {what}. Train it again.") from error


def _rebuild(made: Made, weights: Mapping[str, Tensor]) -> Classifier:
    _require_versions(made)
    channels = made.in_shape[0]
    if len(weights["normalise.mean"]) != channels:
        raise ValueError(f"{len(weights['normalise.mean'])} channels in the weights and {channels} in in_shape")
    with bounded(sum(weight.numel() for weight in weights.values())):
        model = build(
            made.backbone.name,
            made.backbone.options,
            made.in_shape,
            len(made.classes),
            weights["normalise.mean"],
            weights["normalise.std"],
            head=made.head,
            adapters=made.adapters,
            saved=weights,
            content=made.backbone.content,
        )
    model.load_state_dict(weights)
    return model


def _require_versions(made: Made) -> None:
    """Refuse what is installed in another version: it would make a network that computes something else."""
    registry = Registry.discover()
    parts: list[tuple[Kind, Named]] = [("backbones", made.backbone), ("heads", made.head)]
    for kind, part in [*parts, *(("adapters", adapter) for adapter in made.adapters)]:
        installed = registry.entry(kind, part.name).version
        if part.version != installed:
            what, remedy = f"{SINGULAR[kind]} {part.name!r} of a saved network", "Install that one, or train it again."
            raise must(what, f"of version {part.version}, as it was made with", f"{installed}", remedy)
