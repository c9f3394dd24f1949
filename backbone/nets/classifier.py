"""A whole model: preprocessing, backbone and head in one module, so that none of them can be forgotten."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from engram.backbone.contract.networks import Complementary, Counterfactual, Introduced, Predicting, Unnormalised
from engram.backbone.contract.outputs import Outputs, Wanted
from engram.backbone.nets.heads import conceptual
from engram.backbone.nets.needs import need
from engram.backbone.nets.readout import read


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


def as_it_is(backbone: nn.Module, mean: Tensor, std: Tensor, frames: bool) -> tuple[Tensor, Tensor]:
    """Mean and deviation, [C] each, by which a network's images are normalised.

    Those given, but for one that takes images as they are (`engram.backbone.contract.Unnormalised`).
    """
    if isinstance(backbone, Unnormalised) and backbone.raw:
        one = torch.ones_like(std)
        return torch.zeros_like(mean), one / 255 if frames else one
    return mean, std


class Classifier(nn.Module):
    """Images [B, C, H, W] or frames [B, T, C, H, W] (uint8, or float in [0, 1]) -> logits [B, classes]."""

    def __init__(self, backbone: nn.Module, head: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.backbone = backbone
        self.head = head

    def __setattr__(self, name: str, value: Any) -> None:
        """A network that looks at logits is introduced to the head behind it whenever one of the two is new."""
        super().__setattr__(name, value)
        both = self.__dict__.get("_modules", {})
        net, head = both.get("backbone"), both.get("head")
        if name in ("backbone", "head") and head is not None and isinstance(net, Introduced):
            net.introduce(head)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(self.normalise(x)))

    def forward_normalised(self, x: Tensor) -> Tensor:
        """x: as above but float, normalised already (training augments between the two) -> logits [B, classes]."""
        return self.head(self.backbone(x))

    def outputs(self, x: Tensor, wants: Collection[Wanted]) -> Outputs:
        """What objectives look at; x: normalised, as above."""
        if "images" in wants:
            return Outputs(x.new_empty(len(x), 0), images=x)
        if "predictions" in wants:
            errors = need(self.backbone, Predicting, "an objective of predictions").prediction_errors(x)
            return Outputs(x.new_empty(len(x), 0), predictions=errors)
        net: Any = self.backbone
        steps = counterfactual = halves = None
        if "steps" in wants:
            each = net.forward_steps(x)
            steps, features = self.head(each).float(), read(net, each)
        elif "counterfactual" in wants:
            features, other = need(self.backbone, Counterfactual, "a counterfactual").counterfactual(x)
            counterfactual = self.head(other).float()
        elif "halves" in wants:
            features, halves = need(self.backbone, Complementary, "complementary attention").halves(x)
        else:
            features = net(x)
        found = Outputs(
            self.head(features).float(),
            steps,
            features if "features" in wants else None,
            counterfactual=counterfactual,
            halves=halves,
        )
        if "given" in wants:
            head: Any = self.head
            found.given = head.given(features)
        if "concepts" in wants:
            found.concepts = conceptual(self.head).concepts(features).float()
        return found
