"""How a network is trained, as options: one set for every experiment that trains. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from engram.backbone.contract.values import Seed

MOVING = ("translate", "affine", "elastic")
"""The options that move pictures over their border; where none does, ``border`` makes no other trial."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Every value of a training. The defaults suit small networks on images that nothing is known of.

    Experiments that train inherit the fields: they are flags and TOML keys of theirs, with defaults of their own.
    """

    seed: Seed = 0
    """Seed of everything random in the trial."""
    epochs: Annotated[int, Ge(1)] = 30
    """Passes over the training images."""
    batch_size: Annotated[int, Ge(1)] = 64
    """Images per step; the last step of a pass takes what is left, or leaves out a single image under BatchNorm."""
    optimizer: Literal["sgd", "adamw", "muon"] = "adamw"
    """sgd has Nesterov momentum; muon orthogonalises the updates of matrices and kernels, adamw takes the rest."""
    lr: Annotated[float, Gt(0)] = 2e-3
    """Peak learning rate."""
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    """Momentum of sgd and muon, beta1 of adamw."""
    weight_decay: Annotated[float, Ge(0)] = 0.05
    """Decay of weights (decoupled for adamw and muon); biases and norms are spared."""
    l2: Annotated[float, Ge(0)] = 0.0
    """Share of the sum of all squared weights and biases in the loss. Unlike --weight-decay of adamw it goes through
    the optimizer's moments, as in many published protocols."""
    schedule: Literal["onecycle", "cosine", "exponential", "constant"] = "onecycle"
    """onecycle: linear up, then linear down to zero; cosine: linear warm-up, then half a cosine; exponential: linear
    warm-up, then a tenth after every two fifths of the rest."""
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.2
    """Share of the steps in which the learning rate rises."""
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the target spread over all classes."""
    flip: Literal["none", "random", "alternate"] = "none"
    """Horizontal mirror; alternate mirrors every image in every other epoch."""
    translate: Annotated[int, Ge(0)] = 0
    """Largest shift in pixels, in each direction."""
    affine: Annotated[float, Ge(0), Le(1)] = 0.0
    """Largest turn in radians, largest shear, and share by which each side grows or shrinks, of every picture by lot;
    0 for none."""
    elastic: Annotated[float, Ge(0), Le(16)] = 0.0
    """Pixels that parts of a picture move against each other, smoothly, by lot: a standard deviation; 0 for none."""
    border: Literal["reflect", "black"] = "reflect"
    """What a shifted or warped picture shows beyond its border: its mirror image, or black."""
    cutout: Annotated[int, Ge(0)] = 0
    """Side of the square that is blanked; 0 for none."""
    noise: Annotated[float, Ge(0), Le(1)] = 0.0
    """Of pictures alone, Gaussian noise, new at every step: its largest standard deviation, where white is 1. Each
    picture has one of its own up to this, by lot, so that clean pictures stay known; 0 for none."""
    occlude: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Largest share of a picture that is hidden behind grey bars, blobs or a rectangle, by lot, new at every step; of
    recordings there are no events in it. 0 for none."""
    randaugment: Annotated[int, Ge(0), Le(8)] = 0
    """Number of RandAugment operations per batch; 0 for none."""
    event_drop: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Of recordings alone, EventDrop: each loses nothing, a span of time, an area or events at random, by lot, up to
    this share; 0 for never."""
    time_shift: Annotated[int, Ge(0)] = 0
    """Of recordings alone: largest shift in frames, later or earlier."""
    time_jitter: Annotated[float, Ge(0), Le(1)] = 0.0
    """Of recordings alone: share of the events that move to a neighbouring frame."""
    ema: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Decay per step of the running average of the weights that is scored; 0 for none."""
    clip: Annotated[float, Ge(0)] = 0.0
    """Largest norm of the gradient; 0 for no limit."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 autocast where the processor has it in hardware."""
