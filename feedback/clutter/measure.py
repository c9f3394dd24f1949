"""Whether all digits of an image are found: after every step, with and without noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.contract import Row
from engram.backbone.data.columns import PRESENT
from engram.backbone.data.corruptions.draws import Draws
from engram.backbone.data.corruptions.noise import normal_noise
from engram.backbone.data.sets import Split
from engram.backbone.measures.answers import steps_taken
from engram.backbone.measures.anytime import logits_at
from engram.backbone.measures.scoring import SCORING_BATCH
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.layout import arranged
from engram.backbone.objectives.columns import columns_of
from engram.backbone.seeding import derive

DEVIATIONS = (0.1, 0.2, 0.3)
"""Standard deviations of the noise that test images are shown with, where white is 1."""


def exact(logits: Tensor, present: Tensor) -> Tensor:
    """Whether the n strongest outputs are the n classes that are present; two that are equally strong tell nothing.

    Args:
        logits: [..., K].
        present: [..., K] bool.

    Returns: [...] bool.

    Source: Spoerer et al. 2017 (doi 10.3389/fpsyg.2017.01551), top-n accuracy.

    >>> exact(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([[True, False, True], [True, True, False]]))
    tensor([ True, False])
    """
    weakest = logits.masked_fill(~present, torch.inf).amin(-1)
    return weakest > logits.masked_fill(present, -torch.inf).amax(-1)


def found(logits: Tensor, present: Tensor) -> Tensor:
    """Which share of the n classes that are present is among the n strongest outputs. Shapes as in `exact`; [...]."""
    order = logits.argsort(dim=-1, descending=True, stable=True)
    among = torch.arange(logits.shape[-1], device=logits.device) < present.sum(-1, keepdim=True)
    right = present.expand_as(logits).gather(-1, order) & among
    return right.sum(-1) / present.sum(-1).clamp(min=1)


class Found:
    """Sums over images of what was found after each of S steps."""

    def __init__(self, steps: int) -> None:
        self.images, self.steps = 0, steps
        self.sums = torch.zeros(3, steps, dtype=torch.float64)

    def add(self, logits: Tensor, present: Tensor) -> None:
        """logits: [S, B, K] after each step; present: [B, K] bool."""
        logits, present = logits.float(), present.expand_as(logits)
        losses = F.binary_cross_entropy_with_logits(logits, present.float(), reduction="none").mean(-1)
        parts = (exact(logits, present), losses, found(logits, present))
        self.sums += torch.stack([part.double().sum(1) for part in parts]).cpu()
        self.images += len(present[0])

    def rows(self) -> list[Row]:
        """A row for each step: steps, accuracy (share of images with all digits found), loss (nat), found."""
        means = (self.sums / self.images).T.tolist()
        return [
            {"steps": step, "accuracy": accuracy, "loss": loss, "found": share}
            for step, (accuracy, loss, share) in enumerate(means, 1)
        ]


@torch.inference_mode()
def look(model: Classifier, split: Split, device: str, noise: float = 0.0, say: Callable[[int], None] = print) -> Found:
    """Show a network every image of a split, in fp32.

    Args:
        model: on ``device``; it is left in the mode it is in.
        split: images with a column ``present``.
        device: where to compute.
        noise: standard deviation of Gaussian noise, where white is 1; an image has the same one for every network.
        say: is told how many images were shown.

    Raises:
        UserError: there is no such column.
    """
    training = model.training
    model.eval()
    sums, steps = Found(steps_taken(model, split)), list(range(1, steps_taken(model, split) + 1))
    present = columns_of(split, (PRESENT,), device)[PRESENT]
    number = derive(0, "clutter/noise", round(noise * 1000))
    for images, _, places in split.batches(torch.arange(len(split)), SCORING_BATCH, device):
        if noise:
            images = normal_noise(images.cpu(), noise, Draws.of(number, places)).to(device)
        features = model.backbone.forward_steps(model.normalise(arranged(images, model.backbone)))  # type: ignore[operator]
        sums.add(logits_at(model, features, steps), present[places.to(device)])
        say(sums.images)
    model.train(training)
    return sums
