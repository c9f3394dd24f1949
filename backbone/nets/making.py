"""Networks, heads and adapters made by the names they are registered under."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from engram.backbone.contract import Initialised, Named
from engram.backbone.given_files import NETWORKS
from engram.backbone.nets.classifier import Classifier
from engram.backbone.options import options_of
from engram.backbone.registry import Registry

LINEAR = Named("linear", 1, {})
"""The head that a network has when no other is asked for."""
_INSIDE = "backbone."


def build(
    backbone: str,
    options: Mapping[str, Any],
    in_shape: tuple[int, int, int],
    classes: int,
    mean: Tensor,
    std: Tensor,
    head: Named = LINEAR,
    adapters: Sequence[Named] = (),
    saved: Mapping[str, Tensor] | None = None,
    content: str = "",
) -> Classifier:
    """Build a classifier from registered names. Random initialisation uses torch's global generator.

    Args:
        options: the backbone's options by field name; absent ones take their defaults.
        mean: [C], std: [C] of the training images in [0, 1].
        head: what turns its features into logits.
        adapters: applied to the backbone in turn.
        saved: of a saved model, the tensors it will get, which adapters may look at.
        content: of a saved model whose backbone came as a file, what that said.

    Raises:
        UserError: a name is not registered, or an option is unknown or cannot have its value.
    """
    registry = Registry.discover()
    net: Any = _network(registry, backbone, options, in_shape, content)
    source: nn.Module = net
    held = {key.removeprefix(_INSIDE): value for key, value in (saved or {}).items() if key.startswith(_INSIDE)}
    for adapter in adapters:
        net = adapt(net, adapter.name, adapter.options, None if saved is None else held)
    made = build_head(head, net.feature_dim, classes)
    if isinstance(source, Initialised):
        made.apply(source.initialise)
    return Classifier(net, made, mean, std)


def _network(
    registry: Registry, name: str, options: Mapping[str, Any], in_shape: tuple[int, int, int], content: str
) -> nn.Module:
    make, chosen = registry.load("backbones", name), options_of(registry, "backbones", name, options)
    if not registry.entry("backbones", name).takes_path:
        return make(in_shape, chosen)
    if content:
        return make(in_shape, chosen, content, None)
    file = registry.canonical("backbones", name).partition(":")[2]
    return make(in_shape, chosen, registry.content(name), NETWORKS.find(file))


def build_head(head: Named, features: int, classes: int) -> nn.Module:
    """A registered head for so many features and classes."""
    registry = Registry.discover()
    return registry.load("heads", head.name)(features, classes, options_of(registry, "heads", head.name, head.options))


def adapt(backbone: nn.Module, name: str, options: Mapping[str, Any], saved: Mapping[str, Tensor] | None = None) -> Any:
    """A registered adapter applied to a backbone, which is left as it is: another one under the same contract.

    Args:
        saved: where a saved network is made again, the tensors that its backbone will get, by their names in it.
    """
    registry = Registry.discover()
    return registry.load("adapters", name)(backbone, options_of(registry, "adapters", name, options), saved)
