"""A converted network is kept as any trained one is: the conversion is one more adapter in its making."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

from torch import Tensor, nn

from engram.backbone.contract import Wrapping
from engram.backbone.errors import must
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.backbone.saved.made import Made
from engram.snn.conversion.balancing import Thresholds
from engram.snn.conversion.convert import lower, times, with_neurons
from engram.snn.conversion.methods import Conversion
from engram.snn.simulation.network import SpikingBackbone

STEP = "snn.convert"
"""The adapter that stands for the conversion."""
_PREFIX, _SUFFIX = "graph.", ".threshold"
_INSIDE = "inner."


def as_converted(made: Made, how: Conversion) -> Made:
    """What a converted network says of itself: the trained one's ``made``, and one more step."""
    step = in_full(Registry.discover(), "adapters", STEP, asdict(how))
    return replace(made, adapters=(*made.adapters, step))


def restore(backbone: nn.Module, how: Conversion, saved: Mapping[str, Tensor] | None = None) -> nn.Module:
    """The adapter ``snn.convert``: a converted network with room for tensors that were saved, which say how it looks.

    Its thresholds decide where multiplications stay, and a BatchNorm behind a max pool is a layer of its own if there
    are tensors of one: the fresh network's factors know nothing of that.

    Args:
        backbone: the network that was converted; its weights do not matter.
        how: the options it was converted with.
        saved: by their names in the converted network, or in one that was trained from it.

    Raises:
        UserError: there are no thresholds among them.
    """
    saved = saved or {}
    if isinstance(backbone, Wrapping):
        own = {key.removeprefix(_INSIDE): value for key, value in saved.items() if key.startswith(_INSIDE)}
        return backbone.around(_restored(backbone.settled(), how, own)).eval()
    return _restored(backbone, how, saved)


def _restored(backbone: nn.Module, how: Conversion, saved: Mapping[str, Tensor]) -> SpikingBackbone:
    names = [key[len(_PREFIX) : -len(_SUFFIX)] for key in saved if key.startswith(_PREFIX) and key.endswith(_SUFFIX)]
    names = [name for name in names if f"{_PREFIX}{name}.silent" in saved]
    if not names:
        raise must("a converted network", "saved with its thresholds", "none", "Run snn.convert again.")
    found = {
        name: Thresholds(*(saved[f"{_PREFIX}{name}.{kind}"] for kind in ("threshold", "silent"))) for name in names
    }
    graph = lower(backbone, rises=lambda name, _norm: f"{_PREFIX}{name}.weight" not in saved)
    net = with_neurons(backbone, graph, found, how.steps, **times(graph, how))
    for name, neurons in net.neurons().items():  # calibration decides on their shapes
        for buffer in ("start", "current"):
            setattr(neurons, buffer, saved[f"{_PREFIX}{name}.{buffer}"].clone())
    return net.eval()
