"""Options of the trunk's networks; no torch here, so that help and validation are instant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

Activation = Literal["relu", "leaky-relu", "gelu", "silu"]
Normalisation = Literal["batch", "group", "none"]
Pooling = Literal["avg", "max", "stride"]


@dataclass(frozen=True, kw_only=True)
class MLPOptions:
    """Fully connected network."""

    width: Annotated[float, Gt(0), Le(64)] = 1.0
    """Multiplies the 256 units of every hidden layer."""
    units: Annotated[int, Ge(1)] | None = None
    """Units of every hidden layer, where a protocol says how many; None: 256 times the width."""
    depth: Annotated[int, Ge(1), Le(64)] = 2
    """Hidden layers."""
    initialisation: Literal["torch", "glorot"] = "torch"
    """Of all layers, the head's too. torch: PyTorch's own; glorot: uniform after Glorot and Bengio 2010, biases 0."""
    activation: Activation = "relu"
    """Only relu can be converted into spikes."""
    normalisation: Normalisation = "none"
    """After each linear layer."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of hidden units silenced in training."""
    raw: bool = False
    """Take pixels between 0 and 1 as they are, where a protocol does not normalise them."""


@dataclass(frozen=True, kw_only=True)
class ConvOptions:
    """Convolutional network."""

    width: Annotated[float, Gt(0), Le(64)] = 1.0
    """Multiplies every layer's channels."""
    depth: Annotated[int, Ge(1), Le(16)] | None = None
    """Convolutions per stage (vgg, conv4, airnet), blocks per stage (resnet); not for lenet5. None: its own."""
    activation: Activation = "relu"
    """Only relu can be converted into spikes."""
    normalisation: Normalisation | None = None
    """None: the architecture's own (batch, but none for lenet5)."""
    pooling: Pooling = "avg"
    """All can be converted into spikes; max then needs a running sum per input (see snn/graph/pooling.py)."""


@dataclass(frozen=True, kw_only=True)
class Conv4Options(ConvOptions):
    """Convolutional network that pools by maxima unless told otherwise."""

    pooling: Pooling = "max"
    """All can be converted into spikes; max then needs a running sum per input (see snn/graph/pooling.py)."""


@dataclass(frozen=True, kw_only=True)
class ResNet12Options(ConvOptions):
    """ResNet-12."""

    pooling: Pooling = "max"
    """At the end of every block. All can be converted into spikes; max then needs a running sum per input (see
    snn/graph/pooling.py)."""
    features: Literal["mean", "flat"] = "mean"
    """What is left of the picture: the mean of every channel, or all pixels of all channels."""
