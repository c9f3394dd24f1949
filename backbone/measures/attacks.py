"""Attacks: the worst picture within a distance of each, looked for with gradients and without.

A picture is a float image [C, H, W] in [0, 1], and the distance the largest change of any of its values. An attack is
shown logits as a function of pictures, so that any network can be attacked at any of its steps (`answering`). One that
fails says little: gradients that are weak or wrong make a network look robust. Whoever reports an accuracy under attack
therefore reports the least over several, picture by picture (`withstood`), one of them without gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.errors import must
from engram.backbone.measures.anytime import logits_at
from engram.backbone.nets.classifier import Classifier

Logits = Callable[[Tensor], Tensor]
"""Pictures [B, C, H, W] float in [0, 1] -> logits [B, classes]."""
TOGETHER = 512
"""Pictures that SPSA shows to a network at a time."""


class Attack(Protocol):
    """Looks for pictures near given ones that are not recognised."""

    def __call__(
        self,
        logits: Logits,
        images: Tensor,
        labels: Tensor,
        random: torch.Generator,
        target: Logits | None = None,
    ) -> Tensor:
        """Pictures [B, C, H, W], those not recognised where any were found.

        Args:
            logits: what shows the way.
            images: [B, C, H, W] float in [0, 1].
            labels: [B] int64.
            random: of starts and directions.
            target: what every picture on the way is tried on; None: ``logits``.
        """
        ...


def answering(model: Classifier, step: int | None = None) -> Logits:
    """The logits of a classifier, from its read-out; with ``step`` those that it would give if it stopped after it."""

    def logits(images: Tensor) -> Tensor:
        if step is None:
            return model(images)
        net: Any = model.backbone
        return logits_at(model, net.forward_steps(model.normalise(images)), [step])[0]

    return logits


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Projected gradient ascent on the cross-entropy, from random starts in the ball.

    Each step moves every value by ``step`` in the direction of its gradient's sign; what leaves the ball, or [0, 1], is
    set back to its border. A picture counts as found at the first step at which it is not recognised. A network without
    gradients (one that only runs) gets the random starts alone.

    Attributes:
        epsilon: largest change of a value, of 1.
        step: change of a value in one step; None: a quarter of epsilon.

    Source: Madry et al. 2018 (arXiv 1706.06083), equation 1 and section 5.
    """

    epsilon: float = 8 / 255
    steps: int = 20
    step: float | None = None
    restarts: int = 2

    def __post_init__(self) -> None:
        _check(self.epsilon, steps=self.steps, restarts=self.restarts)

    def __call__(
        self,
        logits: Logits,
        images: Tensor,
        labels: Tensor,
        random: torch.Generator,
        target: Logits | None = None,
    ) -> Tensor:
        found = images.clone()
        missing = torch.ones(len(images), dtype=torch.bool, device=images.device)
        move = self.epsilon / 4 if self.step is None else self.step
        for _ in range(self.restarts):
            start = torch.rand(images.shape, generator=random).to(images.device) * 2 - 1
            x = _inside(images + self.epsilon * start, images, self.epsilon)
            for step in range(self.steps + 1):
                gradient, answers = _ascent(logits, x, labels)
                found[missing] = x[missing]
                missing &= (answers if target is None else _answers(target, x)) == labels
                if step == self.steps or not missing.any():
                    break
                x = _inside(x + move * gradient.sign(), images, self.epsilon)
        return found


@dataclass(frozen=True, kw_only=True)
class SPSA:
    """Descent on the margin of the true class with gradients estimated from differences, taken by Adam.

    Attributes:
        epsilon: largest change of a value, of 1.
        samples: random directions for each estimate; each costs two passes.
        delta: how far the network is looked at in each direction.
        lr: Adam's learning rate, of 1.

    Source: Uesato et al. 2018 (arXiv 1802.05666), section 4.2 and algorithm 1.
    """

    epsilon: float = 8 / 255
    steps: int = 20
    samples: int = 32
    delta: float = 0.01
    lr: float = 0.01

    def __post_init__(self) -> None:
        _check(self.epsilon, steps=self.steps, samples=self.samples)

    @torch.no_grad()
    def __call__(
        self,
        logits: Logits,
        images: Tensor,
        labels: Tensor,
        random: torch.Generator,
        target: Logits | None = None,
    ) -> Tensor:
        found, x = images.clone(), images.clone()
        missing = torch.ones(len(images), dtype=torch.bool, device=images.device)
        first, second = torch.zeros_like(x), torch.zeros_like(x)
        for step in range(self.steps + 1):
            rows = missing.nonzero().flatten()
            found[rows] = x[rows]
            missing[rows] = _answers(logits if target is None else target, x[rows]) == labels[rows]
            if step == self.steps or not missing.any():
                break

            def loss(pictures: Tensor, labels: Tensor = labels) -> Tensor:
                return margins(logits(pictures), labels.repeat(len(pictures) // len(labels)))

            gradient = spsa_gradient(loss, x, self.samples, self.delta, random)
            first, second = first.lerp(gradient, 0.1), second.lerp(gradient.square(), 0.001)
            unbiased = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
            x = _inside(x - self.lr * unbiased[0] / (unbiased[1].sqrt() + 1e-8), images, self.epsilon)
        return found


@dataclass(frozen=True)
class Elsewhere:
    """An attack that other logits show the way: those of another network, or of another step of the same one.

    Every picture on the way is tried on the target, whatever the others take it for: where only these err is too early.
    """

    attack: Attack
    logits: Logits

    def __call__(
        self,
        logits: Logits,
        images: Tensor,
        labels: Tensor,
        random: torch.Generator,
        target: Logits | None = None,
    ) -> Tensor:
        return self.attack(self.logits, images, labels, random, logits if target is None else target)


def spsa_gradient(
    loss: Callable[[Tensor], Tensor], x: Tensor, samples: int, delta: float, random: torch.Generator
) -> Tensor:
    """An estimate of the gradient of the loss of every picture, from its differences along random signs.

    Its mean over the signs is the gradient where the loss is linear, and off by a term of the order of ``delta ** 2``
    elsewhere; its variance falls with the number of samples.

    Args:
        loss: n times B pictures -> n times B losses.
        x: [B, C, H, W].

    Source: Spall 1992, equation 2.2, with signs for directions.
    """
    total, done = torch.zeros_like(x), 0
    while done < samples:
        count = min(max(TOGETHER // (2 * len(x)), 1), samples - done)
        signs = torch.randint(0, 2, (count, *x.shape), generator=random).to(x) * 2 - 1
        both = torch.cat([x + delta * signs, x - delta * signs]).flatten(0, 1)
        ahead, behind = loss(both).view(2, count, -1)
        slopes = ((ahead - behind) / (2 * delta)).view(count, len(x), *[1] * (x.ndim - 1))
        total += (slopes * signs).sum(0)
        done += count
    return total / samples


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """logits: [B, classes] -> [B], the logit of the true class above the largest of the others; below 0 it is wrong."""
    own = logits.gather(1, labels[:, None]).squeeze(1)
    return own - logits.scatter(1, labels[:, None], -torch.inf).amax(1)


def withstood(
    logits: Logits, attacks: Sequence[Attack], images: Tensor, labels: Tensor, random: torch.Generator
) -> Tensor:
    """Which pictures are still recognised under each attack, [attacks, B] bool.

    The accuracy under all of them is that of ``withstood(...).all(0)``: an attack that is misled by a network's
    gradients makes it no better.
    """
    rows = []
    for attack in attacks:
        changed = attack(logits, images, labels, random)
        rows.append(_answers(logits, changed) == labels)
    return torch.stack(rows)


@torch.no_grad()
def _answers(logits: Logits, x: Tensor) -> Tensor:
    return logits(x).argmax(1)


def _ascent(logits: Logits, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the cross-entropy at pictures, and what they are taken for."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        out = logits(x)
        loss = F.cross_entropy(out.float(), labels, reduction="sum")
        gradient = torch.autograd.grad(loss, x)[0] if loss.requires_grad else torch.zeros_like(x)
    return gradient, out.detach().argmax(1)


def _inside(x: Tensor, images: Tensor, epsilon: float) -> Tensor:
    """Pictures, set back into the ball around others and into [0, 1]."""
    return x.clamp((images - epsilon).clamp(min=0.0), (images + epsilon).clamp(max=1.0))


def _check(epsilon: float, **counts: int) -> None:
    if not 0 < epsilon <= 1:
        raise must("epsilon", "greater than 0 and at most 1, the whole range of a value", epsilon, "Try 8 / 255.")
    for name, count in counts.items():
        if count < 1:
            raise must(name, "at least 1", count, "Leave it out for the default.")
