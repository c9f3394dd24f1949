"""What networks are, for all that works on any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Backbone(Protocol):
    """A network that turns images into features, in one or more steps (spiking time or recurrence).

    ``forward_steps(x)`` gives the features after each step, ``[steps, B, feature_dim]``; ``forward(x)`` their read-out
    ``[B, feature_dim]``: the mean over steps (``readout == "mean"``) or the last step (``"last"``). Input is
    ``[B, C, H, W]`` or, for event frames, ``[B, T, C, H, W]``. State is passed explicitly; there is no ``reset()``.
    ``stages(x)`` is the output of every stage, ``[B, C_i, H_i, W_i]`` each, the mean over steps where there are more.

    One that sets the memory layout of its images itself says so with ``any_layout = True``
    (`engram.backbone.nets.layout`).

    What an adapter made may have ``verdicts``, rows of ``layer``, ``kind`` and ``verdict``: what became of every layer.
    Experiments that apply adapters show them.
    """

    in_shape: tuple[int, int, int]
    feature_dim: int
    stage_channels: tuple[int, ...]
    convertible: Literal["full", "hybrid", "no"]
    steps: int
    readout: Literal["mean", "last"]

    def stages(self, x: Tensor) -> list[Tensor]: ...
    def forward_steps(self, x: Tensor) -> Tensor: ...
    def forward(self, x: Tensor) -> Tensor: ...
