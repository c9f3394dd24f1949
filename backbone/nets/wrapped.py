"""What every network around another one has of the contract once it gives features step by step."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from engram.backbone.contract import Calibrated, Prepared, Tap
from engram.backbone.nets.readout import read
from engram.backbone.nets.taps import stage_values


class Wrapped(nn.Module):
    """A network with another one, ``inner``, in it. A subclass has ``forward_steps``, which honours taps."""

    inner: Any

    def forward_steps(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [steps, B, feature_dim]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [B, feature_dim], the read-out over steps."""
        return read(self, self.forward_steps(x))  # type: ignore[arg-type]

    def stage_steps(self, x: Tensor) -> list[Tensor]:
        """x: [B, C, H, W] or [B, T, C, H, W] -> the output of every stage at every step, each [S, B, C_i, H_i, W_i]."""
        return stage_values(self, x)  # type: ignore[arg-type]

    def stages(self, x: Tensor) -> list[Tensor]:
        """x: [B, C, H, W] or [B, T, C, H, W] -> the mean over steps of every stage, each [B, C_i, H_i, W_i]."""
        return [stage.mean(0) for stage in self.stage_steps(x)]

    def prepare(self, images: Tensor) -> None:
        """Initialise a fresh network as its architecture wants it. images: [N, C, H, W] normalised."""
        if isinstance(self.inner, Prepared):
            self.inner.prepare(images)

    def calibrate(self, images: Tensor) -> None:
        """Set what was added to a trained network from images, [N, C, H, W] normalised."""
        if isinstance(self.inner, Calibrated):
            self.inner.calibrate(images)
