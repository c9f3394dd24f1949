"""What makes the images of one task look different from another's, without a new class."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engram.backbone.data.views import Transform
from engram.backbone.seeding import generator

COLOURS = ((1.0, 0.2, 0.2), (0.2, 1.0, 0.2), (0.2, 0.4, 1.0), (1.0, 1.0, 0.2), (1.0, 0.2, 1.0), (0.2, 1.0, 1.0))
"""Red, green, blue, yellow, magenta, cyan; then they begin again, darker."""
LOUDEST = 0.5
"""Standard deviation of the noise of the last task, where 1 is white minus black."""


def permuted(in_shape: tuple[int, int, int], seed: int, task: int) -> Transform | None:
    """The same pixels in an order of the task's own, all channels alike; the first task keeps the pictures' order.

    Source: Goodfellow et al. 2013 (arXiv 1312.6211), section 5.1.
    """
    if task == 0:
        return None
    order = torch.randperm(in_shape[1] * in_shape[2], generator=generator(seed, "permutation", task))

    def transform(images: Tensor, places: Tensor) -> Tensor:
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

    def transform(images: Tensor, places: Tensor) -> Tensor:
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

    def transform(images: Tensor, places: Tensor) -> Tensor:
        return (images.float() * tint.to(images.device)[:, None, None]).round().to(torch.uint8)

    return transform


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of each picture's own, as a sensor adds it to an exposure; the same whenever one looks.

    Attributes:
        name: of its draws; other parts of a data set and other tasks have others.
        deviation: in grey levels.
    """

    seed: int
    name: str
    deviation: float

    def __call__(self, images: Tensor, places: Tensor) -> Tensor:
        if not self.deviation:
            return images
        drawn = self._drawn(images, places)
        return drawn.mul_(self.deviation).add_(images).round_().clamp_(0, 255).to(torch.uint8)

    def _drawn(self, images: Tensor, places: Tensor) -> Tensor:
        """The same for a picture whatever it comes with."""
        shape = images.shape[1:]
        drawn = [torch.randn(shape, generator=generator(self.seed, self.name, place)) for place in places.tolist()]
        return torch.stack(drawn).to(images.device)


@dataclass(frozen=True)
class FreshNoise(Noise):
    """`Noise` of pictures that are exposed anew in every pass (`engram.backbone.data.views.DrawnAnew`)."""

    number: int = 0
    """Of the pass."""

    def in_pass(self, number: int) -> FreshNoise:
        return replace(self, number=number)

    def _drawn(self, images: Tensor, places: Tensor) -> Tensor:
        """Drawn at once, a fifth of the time; which batch it is tells the first place, since a pass has each once."""
        random = generator(self.seed, f"{self.name}/{self.number}", int(places[0]), str(images.device))
        return torch.randn(images.shape, generator=random, device=images.device)


def noisy(seed: int, task: int, tasks: int, part: str) -> Noise:
    """Noise that grows from task to task, to `LOUDEST`; the first task has none.

    Pictures to train on have other noise in every pass, those of the other parts (``validation``, ``test``) noise that
    stays, independent of all that is trained on.
    """
    deviation = 255 * LOUDEST * task / (tasks - 1) if task else 0.0
    return (FreshNoise if part == "train" else Noise)(seed, f"noise/{part}/{task}", deviation)
