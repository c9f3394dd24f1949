"""Images as Python hands them over: one tensor, or batches of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from engram.backbone.errors import must

Images = Tensor | Iterable[Any]
"""A tensor [N, C, H, W], or batches: a DataLoader or a list, of tensors [b, C, H, W] or pairs of images and labels."""


def batches(images: Images, labels: Any = None, size: int = 100) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Batches of images [b, C, H, W] with their labels [b] int64, or None where there are none.

    Args:
        images: a tensor is cut into batches; batches stay as they are.
        labels: [N] beside a tensor of images; None for batches, which bring their own.
        size: of the batches of a tensor.

    Raises:
        UserError: they are something else, or labels and images differ in number.

    >>> [(len(x), y) for x, y in batches(torch.zeros(3, 1, 8, 8), [0, 1, 2], size=2)]
    [(2, tensor([0, 1])), (1, tensor([2]))]
    """
    if isinstance(images, Tensor):
        yield from _cut(images, labels, size)
        return
    if labels is not None:
        raise must(
            "labels", "inside the batches, as (images, labels)", "both", "Give one tensor of images, or batches."
        )
    try:
        found = iter(images)
    except TypeError:
        raise _strange(type(images).__name__) from None
    for batch in found:
        pair = batch if isinstance(batch, tuple | list) else (batch,)
        if not pair or not isinstance(pair[0], Tensor):
            raise _strange(f"batches of {type(pair[0] if pair else batch).__name__}")
        yield _checked(pair[0], pair[1] if len(pair) > 1 else None)


def _cut(images: Tensor, labels: Any, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    images, labels = _checked(images, labels)
    parts = [None] * len(images) if labels is None else labels.split(size)
    yield from zip(images.split(size), parts, strict=False)


def _checked(images: Tensor, labels: Any) -> tuple[Tensor, Tensor | None]:
    if images.ndim != 4 or 0 in images.shape:
        raise _strange(list(images.shape))
    if labels is None:
        return images, None
    labels = torch.as_tensor(labels)
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        got = f"{list(labels.shape)} of {labels.dtype} for {len(images)} images"
        raise must("labels", "one whole number for each image, [N]", got, "Give the numbers of the classes.")
    return images, labels.long()


def _strange(got: object) -> Exception:
    rule = "a tensor [N, C, H, W], or a DataLoader or list of such batches"
    return must("images", rule, got, "Stack single images with torch.stack, or wrap a data set in a DataLoader.")
