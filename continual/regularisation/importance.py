"""How much the gradients of single images weigh on every weight of a network, on average over images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from engram.backbone.nets.classifier import Classifier
from engram.backbone.training.optim import lists
from engram.continual.regularisation.layers import Calls, Watch, gradients, positions, terms
from engram.continual.strategy import trainable

BATCH = 256
CHECKED = 4  # images on which a way is compared with the plain loop
AT_ONCE = 2**22  # values of single images' gradients held
KEPT = 2**25  # values of layers' inputs held

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(logits [N, K], labels [N]) -> values [V, N] to differentiate and their weights [V, N], without gradients."""
Shape = Literal["square", "absolute"]
Order = Literal["steps first", "images first"]
"""How a layer's rows are sorted that sees each image more than once, at several steps of time."""


def importance(
    model: Classifier, batches: Iterable[tuple[Tensor, Tensor]], objective: Objective, shape: Shape
) -> list[Tensor]:
    """Mean over images of ``sum_v w_v shape(d value_v / d theta)``, for every trainable weight theta.

    Gradients are those of every image by itself, so that the result does not depend on the size of batches. It is
    computed in evaluation mode in float32: from the layers' inputs and output gradients, a batch at a time, where that
    agrees with the plain loop over images on the first few of them, and by that loop otherwise.

    Args:
        batches: images [N, C, H, W] normalised, and labels [N].
    """
    training = model.training
    model.eval()
    sums, count, way, some = [torch.zeros_like(p) for p in trainable(model)], 0, None, 1
    for images, labels in batches:
        if way is None:
            way = _way(model, images[:CHECKED], labels[:CHECKED], objective, shape)
            some = _room(model, images[:CHECKED])
        for x, y in zip(images.split(some), labels.split(some), strict=True):
            lists._foreach_add_(sums, way(model, x, y, objective, shape))
        count += len(images)
    model.train(training)
    return [total / count for total in sums]


Way = Callable[[Classifier, Tensor, Tensor, Objective, Shape], list[Tensor]]


def _way(model: Classifier, images: Tensor, labels: Tensor, objective: Objective, shape: Shape) -> Way:
    """The fastest one that is right for this network."""
    if not set(trainable(model)) <= Watch(model).covered:
        return one_by_one
    expected = one_by_one(model, images, labels, objective, shape)
    for way in (by_layer, by_layer_images_first):
        found = way(model, images, labels, objective, shape)
        if all(_close(a, b) for a, b in zip(found, expected, strict=True)):
            return way
    return one_by_one


@torch.no_grad()
def _room(model: Classifier, images: Tensor) -> int:
    """How many images may be taken at once: convolutions look at every pixel as often as their kernel has places."""
    with Watch(model) as watch:
        model.forward_normalised(images)
        seen = [terms(layer, x) for layer, calls in watch.calls.items() for x in calls.inputs]
    values = sum(each.numel() for each in seen if each is not None) // len(images)
    return max(KEPT // max(values, 1), 1)


def _close(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def _shaped(gradient: Tensor, shape: Shape) -> Tensor:
    return gradient.square() if shape == "square" else gradient.abs()


def one_by_one(model: Classifier, images: Tensor, labels: Tensor, objective: Objective, shape: Shape) -> list[Tensor]:
    """Sums over images, shaped like the weights, with one backward pass for each image and value.

    Right for every network. images: [N, C, H, W] normalised; labels: [N].
    """
    weights = trainable(model)
    sums = [torch.zeros_like(p) for p in weights]
    for image, label in zip(images.split(1), labels.split(1), strict=True):
        values, shares = objective(model.forward_normalised(image).float(), label)
        for v in range(len(values)):
            kept = v + 1 < len(values)
            found = torch.autograd.grad(values[v, 0], weights, retain_graph=kept, allow_unused=True)
            for total, gradient in zip(sums, found, strict=True):
                if gradient is not None:
                    total += _shaped(gradient, shape) * shares[v, 0]
    return sums


def by_layer(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    objective: Objective,
    shape: Shape,
    order: Order = "steps first",
) -> list[Tensor]:
    """`one_by_one` with one backward pass for each value and batch: right for networks of layers with a formula."""
    sums = {p: torch.zeros_like(p) for p in trainable(model)}
    with Watch(model) as watch:
        values, shares = objective(model.forward_normalised(images).float(), labels)
        layers = {layer: _Layer(layer, calls, sums, shape, len(images), order) for layer, calls in watch.calls.items()}
        outputs = [output for calls in watch.calls.values() for output in calls.outputs]
        for v in range(len(values)):
            kept = v + 1 < len(values)
            found = torch.autograd.grad(values[v].sum(), outputs, retain_graph=kept, allow_unused=True)
            backs = iter(found)
            for layer in layers.values():
                layer.take([next(backs) for _ in layer.calls.outputs], shares[v])
        for layer in layers.values():
            layer.finish()
    return [sums[p] for p in trainable(model)]


def by_layer_images_first(
    model: Classifier, images: Tensor, labels: Tensor, objective: Objective, shape: Shape
) -> list[Tensor]:
    """`by_layer` where calls of a layer have images before steps in their rows."""
    return by_layer(model, images, labels, objective, shape, "images first")


@dataclass
class _Layer:
    """Adds one layer's gradients to the sums of its weight and its bias."""

    module: nn.Module
    calls: Calls
    sums: dict[nn.Parameter, Tensor]
    shape: Shape
    images: int
    order: Order

    def __post_init__(self) -> None:
        parts = [terms(self.module, x) for x in self.calls.inputs]
        self.went_in = self._gather([part for part in parts if part is not None])
        self.back: Tensor | None = None
        """[N, m] sum over values of the shaped gradient of the output, where that is enough."""

    def _gather(self, parts: list[Tensor]) -> Tensor | None:
        """Each [T N, P, n] -> [N, P of all steps and calls, n]."""
        sorted_ = []
        for part in parts:
            if self.order == "steps first":
                part = part.unflatten(0, (-1, self.images)).transpose(0, 1)
            else:
                part = part.unflatten(0, (self.images, -1))
            sorted_.append(part.flatten(1, 2))
        return torch.cat(sorted_, 1) if len(sorted_) > 1 else sorted_[0] if sorted_ else None

    def take(self, backs: list[Tensor | None], share: Tensor) -> None:
        """backs: gradients of the outputs for one value; share: [N], its weight for every image."""
        filled = [
            torch.zeros_like(out) if back is None else back for back, out in zip(backs, self.calls.outputs, strict=True)
        ]
        back = self._gather([positions(self.module, each) for each in filled])
        if back is None:
            return
        weight: nn.Parameter | None = getattr(self.module, "weight", None)
        bias: nn.Parameter | None = getattr(self.module, "bias", None)
        if bias is not None and bias in self.sums:
            self.sums[bias] += share @ _shaped(back.sum(1), self.shape)
        if weight is None or weight not in self.sums or self.went_in is None:
            return
        if isinstance(self.module, nn.Linear) and back.shape[1] == 1:
            # shaped, a product of two is the product of the shaped: no image's gradient is ever made
            added = share[:, None] * _shaped(back[:, 0], self.shape)
            self.back = added if self.back is None else self.back + added
            return
        some = max(AT_ONCE // weight.numel(), 1)
        for b, a, s in zip(back.split(some), self.went_in.split(some), share.split(some), strict=True):
            self.sums[weight] += torch.tensordot(s, _shaped(gradients(self.module, b, a), self.shape), 1)

    def finish(self) -> None:
        if self.back is not None and self.went_in is not None:
            weight = self.module.weight
            self.sums[weight] += self.back.T @ _shaped(self.went_in[:, 0], self.shape)  # type: ignore[index]
