"""What makes the images of one task look different from another's, without a new class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from backbone.seeding import generator

COLOURS = ((1.0, 0.2, 0.2), (0.2, 1.0, 0.2), (0.2, 0.4, 1.0), (1.0, 1.0, 0.2), (1.0, 0.2, 1.0), (0.2, 1.0, 1.0))
"""Red, green, blue, yellow, magenta, cyan; then they begin again, darker."""
LOUDEST = 0.5
"""Standard deviation of the noise of the last task, where 1 is white minus black."""
PATTERNS = 64  # of noise, for each task

Transform = Callable[[Tensor], Tensor]
"""images: [..., C, H, W] uint8 -> the same shape; three channels where colour comes in. The same for every call."""


def permuted(in_shape: tuple[int, int, int], seed: int, task: int) -> Transform | None:
    """The same pixels in an order of the task's own, all channels alike; the first task keeps the pictures' order.

    Source: Goodfellow et al. 2013 (arXiv 1312.6211), section 5.1.
    """
    if task == 0:
        return None
    order = torch.randperm(in_shape[1] * in_shape[2], generator=generator(seed, "permutation", task))

    def transform(images: Tensor) -> Tensor:
        flat = images.flatten(-2)
        return flat.index_select(-1, order.to(images.device)).view(images.shape)

    return transform


def rotated(seed: int, task: int) -> Transform | None:
    """Every picture turned by one angle of the task's own in [0, 180) degrees; the first task is upright.

    Source: Lopez-Paz and Ranzato 2017 (arXiv 1706.08840), section 4.1.
    """
    if task == 0:
        return None
    degrees = 180 * float(torch.rand((), generator=generator(seed, "rotation", task)))

    def transform(images: Tensor) -> Tensor:
        from torchvision.transforms.v2.functional import InterpolationMode, rotate  # heavy, and only this needs it

        return rotate(images, degrees, InterpolationMode.BILINEAR)

    return transform


def coloured(seed: int, task: int) -> Transform:
    """Every picture tinted in one colour of the task's own; grey ones become coloured.

    Source: the coloured digits of Arjovsky et al. 2019 (arXiv 1907.02893), section 5.2, with a colour per task.
    """
    order = torch.randperm(len(COLOURS), generator=generator(seed, "colours")).tolist()
    turn, place = divmod(task, len(COLOURS))
    tint = torch.tensor(COLOURS[order[place]]) / (1 + turn)

    def transform(images: Tensor) -> Tensor:
        return (images.float() * tint.to(images.device)[:, None, None]).round().to(torch.uint8)

    return transform


def noisy(in_shape: tuple[int, int, int], seed: int, task: int, tasks: int) -> Transform | None:
    """Gaussian noise that grows from task to task, to `LOUDEST`; the first task has none.

    A picture always gets the same of the task's `PATTERNS` patterns, whichever its place: its pixels choose it.
    """
    if task == 0:
        return None
    drawn = torch.randn((PATTERNS, *in_shape), generator=generator(seed, "noise", task))
    patterns = drawn * (255 * LOUDEST * task / (tasks - 1))

    def transform(images: Tensor) -> Tensor:
        sums = images.flatten(-3).sum(-1, dtype=torch.int64)
        noise = patterns.to(images.device)[sums % PATTERNS]
        return (images.float() + noise).round().clamp(0, 255).to(torch.uint8)

    return transform
