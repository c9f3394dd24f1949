"""Options of the adapters; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from engram.feedback.connections import Written
from engram.feedback.shares import Numbers

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

    connections: Annotated[str, Written()] | None = None
    """Every stage leads to the one before, which it predicts: there are no others."""
    feedforward: Annotated[str, Numbers("feedforward", 1.0)] = "0.4"
    """Share of a stage's next output that comes from the stage before, beta."""
    feedback: Annotated[str, Numbers("feedback", 1.0)] = "0.1"
    """Share that is what the next stage predicts of it, lambda; what is left of both to 1 stays as it was."""
    correction: Annotated[str, Numbers("correction")] = "0.01"
    """Rate at which a stage is changed where its own prediction is wrong, alpha."""
    learn_mixing: bool = False
    """Train the shares with the network; they begin as given."""
    kernel: Annotated[int, Ge(1), Le(31)] = 3
    """Side of the predictions' kernels, odd."""


@dataclass(frozen=True, kw_only=True)
class EquilibriumOptions:
    """A network in stages, with connections that lead back, run until nothing changes any more."""

    steps: Annotated[int, Ge(2)] = 20
    """Most steps of a still image, the first without feedback; they end before where all images have arrived."""
    connections: Annotated[str, Written()] | None = None
    """What leads back: layer3>layer1,logits>layer2 and so on; unless said, from the last stage to every earlier one."""
    combination: Literal["gated", "additive"] = "gated"
    """How feedback changes a stage: as in feedback.gated, or as in feedback.additive."""
    solver: Literal["iteration", "anderson", "broyden"] = "anderson"
    """How the fixed point and its gradient are looked for: by plain steps, Anderson's mixing or Broyden's method."""
    tolerance: Annotated[float, Gt(0), Lt(1)] = 1e-3
    """Largest relative residual |f(z) - z| / |f(z)| of an image that has arrived."""
    gradient: Literal["implicit", "phantom", "unrolled"] = "implicit"
    """implicit: the fixed point's own; phantom: through some damped steps from it; unrolled: through all steps of plain
    iteration, which are all kept."""
    phantom_steps: Annotated[int, Ge(1)] = 5
    """Damped steps of the phantom gradient."""
    damping: Annotated[float, Gt(0), Le(1)] = 0.5
    """Share of the new value in a damped step."""
    jacobian_penalty: Annotated[float, Ge(0)] = 10.0
    """Weight of |df/dz|^2 / D at the fixed point in whatever loss is minimised, D the length of z: without it training
    may lead to where there is no fixed point to be found."""


@dataclass(frozen=True, kw_only=True)
class BLTOptions(FeedbackOptions):
    """Lateral and top-down connections that are convolutions, Spoerer 2017."""

    connections: Annotated[str, Written()] | None = None
    """What leads back: layer1>layer1,layer2>layer1 and so on; unless said, from every stage to itself and to the one
    before."""
    kernel: Annotated[int, Ge(1), Le(31)] = 3
    """Side of the kernels between maps of the same size, odd."""
    lrn: bool = False
    """Local response normalisation of what leads back, for networks that have it between their stages."""


@dataclass(frozen=True, kw_only=True)
class LateralOptions(FeedbackOptions):
    """Stages that go over their own output, CORnet-S."""

    connections: Annotated[str, Written(within=True)] | None = None
    """Which stages: layer2>layer2,layer3>layer3 and so on; unless said, all but the first."""
    expansion: Annotated[int, Ge(1), Le(16)] = 1
    """Channels between the convolutions of a stage's block, relative to those of the stage; CORnet-S has 4."""


@dataclass(frozen=True, kw_only=True)
class GenerativeOptions:
    """A network whose weights run both ways: from logits back down to a stage, and up again."""

    steps: Annotated[int, Ge(1)] = 3
    """Steps of a still image, the first without feedback; a recording takes one for each frame."""
    connections: Annotated[str, Written()] | None = None
    """Down to which stage: logits>layer2, say; logits>layer1 unless said."""
    share: Annotated[float, Ge(0), Le(1)] = 0.1
    """How far a value moves towards what came down, rho."""
    reconstruction: Annotated[float, Ge(0)] = 0.1
    """Weight of the difference between what came down and what was there, in whatever loss is minimised."""
    readout: Literal["last", "mean", "learned"] = "last"
    """Over steps: the last, their mean, or a mean with learned weights."""
    norm: Literal["step", "shared"] = "step"
    """BatchNorm of what is run again at every step: one for each step, or one for all."""
