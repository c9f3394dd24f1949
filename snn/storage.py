"""Keeping a converted network: weights and thresholds as safetensors, everything else as JSON, with a sha256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_safetensors

from backbone.checkpoint import save_model
from backbone.errors import UserError
from backbone.nets.classifier import Classifier, build
from snn.balancing import Thresholds
from snn.conversion import lower, rebuild
from snn.methods import Conversion

_PREFIX, _SUFFIX = "backbone.graph.", ".threshold"


def save_converted(folder: Path, model: Classifier, about: Mapping[str, Any], how: Conversion) -> None:
    """Save a spiking classifier.

    Args:
        folder: made if absent.
        model: what `conversion.convert` returned.
        about: what the trained network's ``model.json`` says of it; it is rebuilt from that.
        how: the options it was converted with.
    """
    kept = {key: value for key, value in about.items() if key != "sha256"}
    save_model(folder, model, {**kept, "adapter": "snn.convert", "conversion": asdict(how)})


def load_converted(folder: Path) -> Classifier:
    """Load what `save_converted` wrote, in evaluation mode on the CPU.

    Raises:
        UserError: there is none, or its bytes are not the ones that were saved.
    """
    try:
        about = json.loads((folder / "model.json").read_text())
        data = (folder / "model.safetensors").read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f"a converted model must be in {folder}; got {error}. Run snn.convert again.") from None
    if about.get("adapter") != "snn.convert" or hashlib.sha256(data).hexdigest() != about["sha256"]:
        raise UserError(
            f"{folder} must hold a converted model as it was saved; got other bytes. Run snn.convert again."
        )
    weights = load_safetensors(data)
    mean, std = weights["normalise.mean"], weights["normalise.std"]
    shape, classes = tuple(about["in_shape"]), len(about["classes"])
    model = build(
        about["backbone"], about["backbone_options"], shape, classes, mean, std, adapters=about.get("adapters", ())
    ).eval()
    names = [key[len(_PREFIX) : -len(_SUFFIX)] for key in weights if key.endswith(_SUFFIX)]
    found = {
        name: Thresholds(weights[f"{_PREFIX}{name}{_SUFFIX}"], weights[f"{_PREFIX}{name}.silent"]) for name in names
    }
    converted = rebuild(model, lower(model.backbone), found, Conversion(**about["conversion"]))
    for name in found:  # calibration decides on their shapes
        neurons = converted.get_submodule(f"{_PREFIX}{name}")
        for buffer in ("start", "current"):
            setattr(neurons, buffer, weights[f"{_PREFIX}{name}.{buffer}"].clone())
    converted.load_state_dict(weights)
    return converted
