"""What a trial has found so far."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

OTHERS, LOTS = "#others", "#lots"
"""Where the values of images stand that concepts are told from, and of which concepts by lot are made."""


@dataclass
class Explained:
    """What is known of the first pictures; those that follow are not done.

    Attributes:
        maps: [N, H, W] of every method, and of ``random``.
        measures: [N] of every method, by the name of the measure.
        curves: [N, K] of every method, of insertion and deletion.
        answers: [N] int64, the network's.
        gradients: [N, D] of the logit of the answer, with respect to the stage's output: its mean over places.
        excited: [N, c], how strongly every channel of the stage is excited.
        values: by concept, `OTHERS` and `LOTS` the stage's output for their images, [E, D].
    """

    maps: dict[str, Tensor] = field(default_factory=dict)
    measures: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    curves: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    answers: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    gradients: Tensor = field(default_factory=lambda: torch.zeros(0))
    excited: Tensor = field(default_factory=lambda: torch.zeros(0))
    values: dict[str, Tensor] = field(default_factory=dict)
