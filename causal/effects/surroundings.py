"""Objects before other pictures' backgrounds: does a network answer by the shape, or by what is around it?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from engram.backbone.errors import must
from engram.causal.data.backgrounds import without_object


def partners(labels: Tensor) -> Tensor:
    """For every picture the next one, in a circle, of another class. labels: [N] int64 -> [N] int64.

    Raises:
        UserError: all are of one class.

    >>> partners(torch.tensor([0, 0, 1])).tolist()
    [2, 2, 0]
    """
    twice = labels.repeat(2)
    if bool((labels == labels[0]).all()):
        raise must("the pictures looked at", "of two classes or more", "one class", "Raise --images.")
    found = []
    for place, label in enumerate(labels.tolist()):
        other = int((twice[place + 1 : place + len(labels)] != label).int().argmax())
        found.append((place + 1 + other) % len(labels))
    return torch.tensor(found)


def in_front(images: Tensor, masks: Tensor, others: Tensor, their_masks: Tensor) -> Tensor:
    """The objects of some pictures before the backgrounds of others.

    Where the other picture's own object was, there is the mean of its background.

    Args:
        images, others: [B, C, H, W] uint8.
        masks, their_masks: [B, H, W] bool, where their objects are.

    Returns: [B, C, H, W] uint8.
    """
    return torch.where(masks.unsqueeze(1), images, without_object(others, their_masks))


class Surroundings:
    """What a network answers to the object of one picture before the background of another one, of another class.

    Attributes:
        probability: [2, N] float32, of the class of the object, and of that of the background.
        answers: [2, N] bool, whether it answers with one of these.

    Source: Xiao et al. 2021 (Noise or Signal), section 2 (backgrounds exchanged); Geirhos et al. 2019 (share of shape).
    """

    def __init__(self, images: int) -> None:
        self.probability = torch.zeros(2, images)
        self.answers = torch.zeros(2, images, dtype=torch.bool)

    def add(self, logits: Tensor, targets: Tensor, others: Tensor, at: slice) -> None:
        """logits: [B, K]; targets, others: [B] int64, outputs of the object's and the background's class."""
        both, answers = torch.stack([targets, others], 1), logits.argmax(1, keepdim=True)
        self.probability[:, at] = logits.softmax(1).gather(1, both).T.cpu()
        self.answers[:, at] = (answers == both).T.cpu()

    def share(self) -> float | None:
        """Of the answers with one of the two classes, the share with the object's; None where there is none."""
        shape, background = self.answers.sum(1).tolist()
        return shape / (shape + background) if shape + background else None

    def state_dict(self) -> dict[str, Tensor]:
        return {"probability": self.probability, "answers": self.answers}

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        for name, value in self.state_dict().items():
            value.copy_(saved[name])
