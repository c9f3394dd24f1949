"""Options of the strategies with generative models; no torch here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

from engram.backbone.contract import StrategyOptions, Traits
from engram.continual.distilling import Scale


@dataclass(frozen=True, kw_only=True)
class DGROptions(StrategyOptions):
    """Deep generative replay."""

    space: Literal["pixel", "latent"] = "pixel"
    """pixel: images are generated. latent: what the network's body makes of them, which stays as the first task left it
    from then on; only the head goes on learning."""
    architecture: Literal["dense", "conv"] = "dense"
    """Of the autoencoder: two hidden layers each way, or two convolutions and one hidden layer; latent is dense."""
    latent: Annotated[int, Ge(1)] = 100
    """Latent variables of the autoencoder."""
    hidden: Annotated[int, Ge(1)] = 400
    """Units of its hidden layers."""
    targets: Literal["hard", "soft"] = "hard"
    """What generated rows are labelled with: the likeliest class, or the probabilities at temperature 2."""
    scale: Scale = "none"
    """Factor of the loss of soft targets. temperature: 4, its square; outputs: that divided by the number of outputs,
    as van de Ven's code of 2018 has it; none: 1."""
    lr: Annotated[float, Gt(0)] = 1e-3
    """Learning rate of the autoencoder, which is trained by Adam."""

    def traits(self, declared: Traits, path: str) -> Traits:
        return replace(declared, alone=self.space == "latent")  # the network's body stays as it is


@dataclass(frozen=True, kw_only=True)
class BIROptions:
    """Brain-inspired replay."""

    space: Literal["pixel", "latent"] = "pixel"
    """pixel: images are generated. latent (internal replay): what the network's body makes of them, which stays as the
    first task left it from then on; only the head goes on learning."""
    architecture: Literal["dense", "conv"] = "dense"
    """Of the feedback connections: two hidden layers, or one and two convolutions; latent is dense."""
    latent: Annotated[int, Ge(1)] = 100
    """Latent variables."""
    hidden: Annotated[int, Ge(1)] = 400
    """Units of the hidden layers of the feedback connections."""
    gated: Annotated[float, Ge(0), Lt(1)] = 0.1
    """Share of those units that a class silences (a task, where tasks share their outputs)."""
    targets: Literal["hard", "soft"] = "soft"
    """What generated rows are labelled with: the likeliest class, or the probabilities at temperature 2."""
    scale: Scale = "temperature"
    """Factor of the loss of soft targets. temperature: 4, its square, as the method's own code has it; outputs: that
    divided by the number of outputs; none: 1, as in van de Ven's code of 2022."""
    lr: Annotated[float, Gt(0)] = 1e-3
    """Learning rate of what is added to the network, which is trained by Adam."""
