"""Options of the adapters; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le, Lt

from engram.feedback.connections import Written

STEPS = 4
"""How many steps a still image takes where nobody says."""


@dataclass(frozen=True, kw_only=True)
class FeedbackOptions:
    """A network in stages, run step by step, with connections that lead back."""

    steps: Annotated[int, Ge(1)] | None = None
    """Steps of a still image, 4 unless said; a recording takes one for each frame. A spiking network has its own."""
    connections: Annotated[str, Written()] | None = None
    """What leads back: layer3>layer1,logits>layer2 and so on; unless said, from the last stage to every earlier one.
    layerK is the network's stage number K, from 1; sources are stages, features and logits."""
    unrolling: Literal["engineering", "biological"] = "engineering"
    """engineering: an image passes all stages in every step, and what leads back takes one. biological: from each stage
    to the next takes a step too; steps count from when the image has reached the last one."""
    readout: Literal["last", "mean", "learned"] | None = None
    """Over steps: the last, their mean, or a mean with learned weights; the last unless said, of a spiking network its
    own."""
    norm: Literal["step", "shared"] = "step"
    """BatchNorm of what is run again at every step: one for each step, or one for all, whose statistics mix them."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the units of stages that are run again that are switched off, anew at every step of a training."""
    truncate: Annotated[int, Ge(1)] | None = None
    """Cut the gradient of what leads back every so many steps, counted from the last one."""


@dataclass(frozen=True, kw_only=True)
class PredictiveOptions(FeedbackOptions):
    """Predictive coding: every stage predicts the one before, the first one the image.

    Shares are one number for all stages, or one for each with commas between: 0.2,0.4,0.4.
    """

    connections: str | None = None
    """Every stage leads to the one before, which it predicts: there are no others."""
    feedforward: str = "0.4"
    """Share of a stage's next output that comes from the stage before, beta."""
    feedback: str = "0.1"
    """Share that is what the next stage predicts of it, lambda; what is left of both to 1 stays as it was."""
    correction: str = "0.01"
    """Rate at which a stage is changed where its own prediction is wrong, alpha."""
    learn_mixing: bool = False
    """Train the shares with the network; they begin as given."""
    kernel: Annotated[int, Ge(1), Le(31)] = 3
    """Side of the predictions' kernels, odd."""
