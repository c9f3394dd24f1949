"""A whole model: preprocessing, backbone and head in one module, so that none of them can be forgotten."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engram.backbone.contract import Delayed, Initialised, Named, Outputs, Wanted
from engram.backbone.options import options_of
from engram.backbone.registry import Registry

LINEAR = Named("linear", 1, {})
"""The head that a network has when no other is asked for."""
_INSIDE = "backbone."


class Normalise(nn.Module):
    """Images to zero mean and unit deviation per channel, as measured on the training images.

    Shapes: [..., C, H, W] uint8 in 0..255 or float in [0, 1] -> the same shape, float32.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.float().clone())
        self.register_buffer("std", std.float().clone())

    def forward(self, x: Tensor) -> Tensor:
        whole = x.dtype == torch.uint8
        mean, std = self.mean, self.std
        scale = (std * 255.0 if whole else std).reciprocal().view(-1, 1, 1)
        shift = (mean / std).view(-1, 1, 1)
        if whole:  # the copy is ours to write into
            return x.float().mul_(scale).sub_(shift)
        return x.float() * scale - shift


class Classifier(nn.Module):
    """Images [B, C, H, W] or frames [B, T, C, H, W] (uint8, or float in [0, 1]) -> logits [B, classes]."""

    def __init__(self, backbone: nn.Module, head: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.backbone = backbone
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(self.normalise(x)))

    def forward_normalised(self, x: Tensor) -> Tensor:
        """x: as above but float, normalised already (training augments between the two) -> logits [B, classes]."""
        return self.head(self.backbone(x))

    def outputs(self, x: Tensor, wants: Collection[Wanted]) -> Outputs:
        """What objectives look at; x: normalised, as above."""
        net: Any = self.backbone
        steps = None
        if "steps" in wants:
            each = net.forward_steps(x)
            steps, late = self.head(each).float(), each[net.delay :] if isinstance(net, Delayed) else each
            features = late.mean(0) if self.backbone.readout == "mean" else late[-1]
        else:
            features = net(x)
        return Outputs(self.head(features).float(), steps, features if "features" in wants else None)


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
) -> Classifier:
    """Build a classifier from registered names. Random initialisation uses torch's global generator.

    Args:
        options: the backbone's options by field name; absent ones take their defaults.
        mean: [C], std: [C] of the training images in [0, 1].
        head: what turns its features into logits.
        adapters: applied to the backbone in turn.
        saved: of a saved model, the tensors it will get, which adapters may look at.

    Raises:
        UserError: a name is not registered, or an option is unknown or cannot have its value.
    """
    registry = Registry.discover()
    net: Any = registry.load("backbones", backbone)(in_shape, options_of(registry, "backbones", backbone, options))
    source: nn.Module = net
    held = {key.removeprefix(_INSIDE): value for key, value in (saved or {}).items() if key.startswith(_INSIDE)}
    for adapter in adapters:
        net = adapt(net, adapter.name, adapter.options, None if saved is None else held)
    made = build_head(head, net.feature_dim, classes)
    if isinstance(source, Initialised):
        made.apply(source.initialise)
    return Classifier(net, made, mean, std)


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
