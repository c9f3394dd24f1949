"""The networks that are compared, and what each answers at its steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import Delayed
from engram.backbone.errors import must
from engram.backbone.measures.anytime import logits_at
from engram.backbone.measures.attacks import PGD, SPSA, Attack, Elsewhere, answering
from engram.backbone.measures.points import curve_steps
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.layout import arranged
from engram.backbone.saved.made import Made
from engram.backbone.saved.model import load_model
from engram.feedback.robustness.matching import Size, at_most, measured

ALL_UP_TO = 16
"""Networks with no more steps are scored after every one."""


@dataclass(frozen=True)
class Contender:
    """A trained network in evaluation mode.

    Attributes:
        model: with its head and preprocessing.
        made: what its trial says of it.
        points: the numbers of steps after which it is scored, the last one its own.
        first: which of them is the first at which the image has gone through the whole network.
    """

    model: Classifier
    made: Made
    points: tuple[int, ...]
    first: int

    @property
    def several(self) -> bool:
        """Whether it takes more than one step."""
        return len(self.points) > 1

    @torch.inference_mode()
    def answers(self, images: Tensor) -> Tensor:
        """What it takes images for after each of its points. images: [B, C, H, W] uint8 -> [points, B] int64."""
        net: Any = self.model.backbone
        features = net.forward_steps(self.model.normalise(arranged(images, net)))
        return logits_at(self.model, features, self.points).argmax(-1)

    def size(self, images: Tensor) -> Size:
        """images: [N, C, H, W] uint8, on which operations are counted."""
        return measured(self.model, images)

    def size_at_most(self, images: Tensor) -> Size:
        """As `size`, when it takes all its steps although it has settled: what its controls are matched to."""
        return at_most(self.model, images)

    def size_at_first(self, images: Tensor) -> Size:
        """As `size`, when it stops after its first point: so many frames take as many steps."""
        steps = self.points[self.first]
        return measured(self.model, images[:, None].expand(-1, steps, -1, -1, -1))

    def attacks(self, epsilon: float) -> dict[str, Attack]:
        """How it is attacked, by name: through its gradients, those of its first step, and without any.

        One of a single step is attacked from as many more starts, so that no network has to stand more tries.
        """
        pgd, spsa = PGD(epsilon=epsilon), SPSA(epsilon=epsilon)
        found: dict[str, Attack] = {"pgd": pgd, "spsa": spsa}
        if self.several:
            found["pgd at the first step"] = Elsewhere(pgd, answering(self.model, self.points[self.first]))
        else:
            found["pgd from other starts"] = pgd
        return found


def contender(folder: Path, device: str) -> Contender:
    """The network that a trial has saved.

    Raises:
        UserError: it has none.
    """
    model, made = load_model(folder / "model")
    model.to(device).eval().requires_grad_(False)
    net: Any = model.backbone
    steps: int = net.steps
    begin = min(net.delay + 1, steps) if isinstance(net, Delayed) else 1
    points = sorted({*(range(1, steps + 1) if steps <= ALL_UP_TO else curve_steps(steps)), begin})
    return Contender(model, made, tuple(points), points.index(begin))


def require_alike(network: Made, other: Made, name: str) -> None:
    """Refuse to compare networks that were trained on different data.

    Raises:
        UserError: they are.
    """
    seen = [None if made.data is None else made.data.fingerprint for made in (network, other)]
    if seen[0] != seen[1] or network.classes != other.classes:
        raise must(
            f"the {name} network",
            "trained on the data of the network that it is a control of",
            "other data",
            "Train both again.",
        )
