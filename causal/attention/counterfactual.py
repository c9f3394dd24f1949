"""The adapter ``causal.counterfactual-attention``: features by attention maps, and by maps that might have been."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.contract import Tap
from engram.backbone.nets.readout import read
from engram.backbone.nets.taps import Show
from engram.causal.attention.around import AroundStages, Memory
from engram.causal.attention.options import CounterfactualOptions, Kind

_LEAST = 1e-6


class Attended(NamedTuple):
    """What one step of the last stage comes to.

    Attributes:
        maps: [B, M, H, W], not negative.
        values: [B, C, H, W], the output of the last stage.
    """

    maps: Tensor
    values: Tensor


class CounterfactualAttention(AroundStages):
    """Bilinear attention pooling of the last stage in place of the tail of a network in stages.

        phi_m = mean over places of A_m F,    f = s sign(phi) sqrt(|phi| + e) / |.|

    A = ReLU(BN(1x1 convolution of F)) are M maps, F the C channels of the last stage, and f, of length s, has M C
    values: attention can be said to be where it matters for what the head makes of f. `counterfactual` gives the same
    features with other maps in the place of A, which no image looks at in ``forward``.

    Args:
        backbone: the network, of which a copy becomes part of this one; its tail is not used.
        options: how many maps, and what takes their place.

    Raises:
        UserError: the network is not in stages.

    Source: Rao, Chen, Lu and Zhou 2021 (arXiv 2108.08728), sections 3.1 and 3.2; e = 1e-6 and s = 100 as they train.
    """

    def __init__(self, backbone: nn.Module, options: CounterfactualOptions) -> None:
        super().__init__(backbone, "causal.counterfactual-attention")
        self.options = options
        channels = self.stage_channels[-1]
        self.maps = nn.Sequential(
            nn.Conv2d(channels, options.maps, 1, bias=False), nn.BatchNorm2d(options.maps), nn.ReLU()
        )
        self.feature_dim = options.maps * channels
        if self.remembers_inside:
            self.remembers = True

    # It is in stages itself: the tail is what pools.

    def apply_stage(self, index: int, x: Tensor, memory: Memory | None = None, tap: Tap | None = None) -> Tensor:
        """One stage, or one step of it: x [B, C, H, W] -> [B, C', H', W']."""
        return self.run_stage(index, x, {} if memory is None else memory, tap)

    def apply_tail(self, x: Tensor, memory: Memory | None = None, tap: Tap | None = None) -> Tensor:
        """x: the output of the last stage, [B, C, H, W] -> features [B, feature_dim]."""
        return self.features_of(self.maps(x), x)

    def one_step(self, x: Tensor, memory: Memory, show: Show | None, tap: Tap | None) -> Tensor:
        """x: [B, C, H, W] -> [B, feature_dim]."""
        return self.features_of(*self.attended(x, memory, show, tap))

    def attended(self, x: Tensor, memory: Memory, show: Show | None = None, tap: Tap | None = None) -> Attended:
        """The maps and the last stage of one step. x: [B, C, H, W]."""
        for index in range(len(self.stage_channels)):
            x = self.run_stage(index, x, memory, tap)
            x = x if show is None else show(index, x)
        return Attended(self.maps(x), x)

    def features_of(self, maps: Tensor, values: Tensor) -> Tensor:
        """maps: [B, M, H, W]; values: [B, C, H, W] -> [B, M C]."""
        pooled = torch.einsum("bmhw,bchw->bmc", maps, values.to(maps.dtype)).flatten(1).float()
        pooled = pooled / maps[0, 0].numel()
        rooted = pooled.sign() * (pooled.abs() + _LEAST).sqrt()
        return self.options.scale * F.normalize(rooted, dim=-1)

    def counterfactual(self, x: Tensor, kind: Kind | None = None) -> tuple[Tensor, Tensor]:
        """The features, and what they would be with other maps: Y(A) and Y(A_cf) once a head has seen them.

        In training the maps that are drawn are drawn from torch's generator, which the training seeds at every step.

        Args:
            x: [B, C, H, W] or [B, T, C, H, W].
            kind: what takes the place of the maps; None: what the options say.

        Returns: [B, feature_dim] each, the read-out over steps.
        """
        kind, steps, memory = kind or self.options.counterfactual, list[tuple[Tensor, Tensor]](), Memory()
        for image in x.unbind(1) if x.ndim == 5 else (x,) * self.steps:
            maps, values = self.attended(image, memory)
            steps.append((self.features_of(maps, values), self.features_of(self.instead(maps, kind), values)))
        found, other = (torch.stack(each) for each in zip(*steps, strict=True))
        return read(self, found), read(self, other)

    def instead(self, maps: Tensor, kind: Kind) -> Tensor:
        """The maps of a kind in the place of these: [B, M, H, W] -> the same shape, without a gradient to draw.

        Shuffled, every image has the maps of the one before in evaluation, of any in training.
        """
        if kind == "uniform":
            return torch.rand_like(maps) * 2 if self.training else torch.ones_like(maps)
        if kind == "shuffled":
            order = torch.randperm(len(maps), device=maps.device) if self.training else None
            return maps.roll(1, 0) if order is None else maps[order]
        if kind == "mean":
            return maps.mean((2, 3), keepdim=True).expand_as(maps)
        return maps.amax((2, 3), keepdim=True) - maps


def counterfactual_attention(
    backbone: nn.Module, options: CounterfactualOptions, saved: Mapping[str, Any] | None = None
) -> CounterfactualAttention:
    """Attention maps on a copy of a network in stages.

    Raises:
        UserError: it is not in stages.
    """
    return CounterfactualAttention(backbone, options).train(backbone.training)
