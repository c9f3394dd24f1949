"""Keeping a converted network as any trained one is kept: the conversion is one more step in its making."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from engram.backbone.errors import must
from engram.backbone.nets.classifier import Classifier
from engram.backbone.saved.states import save_model
from engram.snn.conversion.balancing import Thresholds
from engram.snn.conversion.convert import left_out, lower, spiking
from engram.snn.conversion.methods import Conversion
from engram.snn.simulation.network import SpikingBackbone

STEP = "snn.convert"
"""What the conversion is called among a saved model's adapters."""
_PREFIX, _SUFFIX = "graph.", ".threshold"


def save_converted(folder: Path, model: Classifier, about: Mapping[str, Any], how: Conversion) -> None:
    """Save a spiking classifier, for `engram.backbone.saved.states.load_model`.

    Args:
        folder: made if absent.
        model: what `conversion.convert` returned.
        about: what the trained network's ``model.json`` says of it; it is rebuilt from that.
        how: the options it was converted with.
    """
    adapters = [*about.get("adapters", ()), {"name": STEP, "options": asdict(how)}]
    kept = {key: value for key, value in about.items() if key != "sha256"}
    save_model(folder, model, {**kept, "adapters": adapters})


def restore(backbone: nn.Module, options: Mapping[str, Any], saved: Mapping[str, Tensor]) -> SpikingBackbone:
    """A converted network that has room for tensors that were saved, which say what it looks like.

    Its thresholds decide where multiplications stay, and a BatchNorm behind a max pool is a layer of its own if there
    are tensors of one: the fresh network's factors know nothing of that.

    Args:
        backbone: the network that was converted; its weights do not matter.
        options: of the conversion, as `save_converted` wrote them.
        saved: by their names in the converted network, or in one that was trained from it.

    Raises:
        UserError: there are no thresholds among them.
    """
    how = Conversion(**options)
    names = [key[len(_PREFIX) : -len(_SUFFIX)] for key in saved if key.startswith(_PREFIX) and key.endswith(_SUFFIX)]
    names = [name for name in names if f"{_PREFIX}{name}.silent" in saved]
    if not names:
        raise must("a converted network", "saved with its thresholds", "none", "Run snn.convert again.")
    found = {
        name: Thresholds(*(saved[f"{_PREFIX}{name}.{kind}"] for kind in ("threshold", "silent"))) for name in names
    }
    graph = lower(backbone, rises=lambda name, _norm: f"{_PREFIX}{name}.weight" not in saved)
    times: dict[str, Any] = {"start": how.start, "delay": left_out(graph, how), "pre_simulation": how.pre_simulation}
    net = spiking(backbone, graph, found, how.steps, **times)
    for name, neurons in net.neurons().items():  # calibration decides on their shapes
        for buffer in ("start", "current"):
            setattr(neurons, buffer, saved[f"{_PREFIX}{name}.{buffer}"].clone())
    return net.eval()
