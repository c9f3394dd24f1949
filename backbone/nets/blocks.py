"""The parts every network of the trunk is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.contract import Tap
from engram.backbone.errors import must
from engram.backbone.nets.options import Activation, Normalisation, Pooling
from engram.backbone.nets.recompute import recomputed
from engram.backbone.nets.taps import Show, folded_steps, stage_values

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


class FeedForward(nn.Module):
    """What every network without steps of its own does with images and event frames.

    Event frames ``[B, T, C, H, W]`` are a sequence of T images: each is one step, and the read-out is their mean.
    A subclass has ``features(x)``, ``image_stages(x)`` and ``shown_features(x, show)``, of images alone.
    """

    in_shape: tuple[int, int, int]
    feature_dim: int
    stage_channels: tuple[int, ...]
    steps = 1
    readout: Literal["mean", "last"] = "mean"

    def features(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> [B, feature_dim]. Free of control flow on tensors: this is what gets traced."""
        raise NotImplementedError

    def image_stages(self, x: Tensor) -> list[Tensor]:
        """x: [B, C, H, W] -> the output of every stage, each [B, C_i, H_i, W_i]."""
        raise NotImplementedError

    def shown_features(self, x: Tensor, show: Show) -> Tensor:
        """As ``features``, but ``show`` has the output of every stage, and what it returns goes on."""
        raise NotImplementedError

    def stages(self, x: Tensor) -> list[Tensor]:
        """x: [B, C, H, W] or [B, T, C, H, W] -> the mean over steps of every stage, each [B, C_i, H_i, W_i]."""
        if x.ndim == 5:
            return [stage.unflatten(0, x.shape[:2]).mean(1) for stage in self.image_stages(x.flatten(0, 1))]
        return self.image_stages(x)

    def stage_steps(self, x: Tensor) -> list[Tensor]:
        """x: [B, C, H, W] or [B, T, C, H, W] -> the output of every stage at every step, each [S, B, C_i, H_i, W_i]."""
        return stage_values(self, x)

    def forward_steps(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [steps, B, feature_dim]; steps is 1 for a still image, T for frames."""
        if tap is not None:
            return folded_steps(self, x, tap, self.shown_features)
        if x.ndim == 5:
            return self.features(x.flatten(0, 1)).unflatten(0, x.shape[:2]).transpose(0, 1)
        return self.features(x).unsqueeze(0)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] or [B, T, C, H, W] -> [B, feature_dim], the mean over steps."""
        return self.forward_steps(x).mean(0) if x.ndim == 5 else self.features(x)


class StaticBackbone(FeedForward):
    """A feed-forward network in stages, under the `engram.backbone.contract.Backbone` contract with one step.

    Args:
        in_shape: (C, H, W) of one image.
        stages: modules applied in turn, each ``[B, C_i, H_i, W_i] -> [B, C_{i+1}, H_{i+1}, W_{i+1}]``.
        tail: what turns the last stage into features, ``[B, C, H, W] -> [B, feature_dim]``.

    With ``recompute`` set, training keeps the output of every stage only and computes the rest again in the backward
    pass; not under a tap, which would see everything twice.
    """

    recompute = False

    def __init__(self, in_shape: tuple[int, int, int], stages: Sequence[nn.Module], tail: nn.Module) -> None:
        super().__init__()
        self.in_shape = in_shape
        self.body = nn.ModuleList(stages)
        self.tail = tail
        self.stage_channels, self.feature_dim = self._measure()

    def _measure(self) -> tuple[tuple[int, ...], int]:
        """Run one blank image through in evaluation mode; the shapes are what they are, nobody computes them twice."""
        training = self.training
        self.eval()
        with torch.no_grad():
            blank = torch.zeros(1, *self.in_shape)
            channels = tuple(stage.shape[1] for stage in self.stages(blank))
            features = self.features(blank).shape[1]
        self.train(training)
        return channels, features

    def image_stages(self, x: Tensor) -> list[Tensor]:
        """x: [B, C, H, W] -> the output of every stage, each [B, C_i, H_i, W_i]."""
        outputs = []
        for stage in self.body:
            x = stage(x)
            outputs.append(x)
        return outputs

    def apply_stage(self, index: int, x: Tensor) -> Tensor:
        """x: the images, or the output of stage ``index - 1`` -> the output of stage ``index``, [B, C, H, W]."""
        return self.body[index](x)

    def apply_tail(self, x: Tensor) -> Tensor:
        """x: the output of the last stage, [B, C, H, W] -> features [B, feature_dim]."""
        return self.tail(x)

    def shown_features(self, x: Tensor, show: Show) -> Tensor:
        """x: [B, C, H, W] -> [B, feature_dim]; ``show`` has the output of every stage."""
        for index, stage in enumerate(self.body):
            x = show(index, stage(x))
        return self.tail(x)

    def features(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> [B, feature_dim]."""
        recompute = self.recompute and self.training
        for stage in self.body:
            x = recomputed(stage, x) if recompute else stage(x)
        return self.tail(x)


class PooledConv2d(nn.Conv2d):
    """A convolution of stride 1 followed by 2x2 average pooling, computed as one convolution of stride 2.

    Averaging four neighbouring outputs of a k x k kernel is one (k+1) x (k+1) kernel, the average of its four shifts:
    exact, borders included, and (2k / (k+1))^2 times cheaper (2.25 times for k = 3). The parameter stays k x k.

    Shapes: [B, C_in, H, W] -> [B, C_out, H // 2, W // 2] for k = 3 with padding 1.
    """

    def pooled_weight(self) -> Tensor:
        """[C_out, C_in, k, k] -> [C_out, C_in, k + 1, k + 1]."""
        rows = F.pad(self.weight, (0, 0, 0, 1)) + F.pad(self.weight, (0, 0, 1, 0))
        return (F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))) * 0.25

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.pooled_weight(), self.bias, stride=2, padding=self.padding)

    def baked(self) -> nn.Conv2d:
        """The plain convolution this is, for tracing, folding, conversion and export."""
        k = (self.kernel_size[0] + 1, self.kernel_size[1] + 1)
        plain = nn.Conv2d(self.in_channels, self.out_channels, k, 2, self.padding, bias=self.bias is not None)  # type: ignore[arg-type]
        plain = plain.to(self.weight.device, self.weight.dtype)
        with torch.no_grad():
            plain.weight.copy_(self.pooled_weight())
            if self.bias is not None and plain.bias is not None:
                plain.bias.copy_(self.bias)
        return plain.train(self.training)


class Add(nn.Module):
    """Residual addition as a module of its own, so that a graph names it."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def activation(name: Activation) -> nn.Module:
    """A new module for every use: a shared one could not be given a neuron state of its own."""
    return _ACTIVATIONS[name]()


def normalisation(name: Normalisation, channels: int) -> list[nn.Module]:
    if name == "batch":
        return [nn.BatchNorm2d(channels)]
    if name == "group":
        groups = next(g for g in (8, 4, 2, 1) if channels % g == 0)
        return [nn.GroupNorm(groups, channels)]
    return []


def conv_unit(cin: int, cout: int, act: Activation, norm: Normalisation, stride: int = 1) -> list[nn.Module]:
    """3x3 convolution, normalisation, activation."""
    conv = nn.Conv2d(cin, cout, 3, stride, 1, bias=norm == "none")
    return [conv, *normalisation(norm, cout), activation(act)]


def halving_conv(cin: int, cout: int, norm: Normalisation, pooling: Pooling) -> list[nn.Module]:
    """3x3 convolution that halves the picture before its normalisation: pooled, or strided."""
    bias = norm == "none"
    if pooling == "avg":
        return [PooledConv2d(cin, cout, 3, padding=1, bias=bias), *normalisation(norm, cout)]
    if pooling == "max":
        return [nn.Conv2d(cin, cout, 3, padding=1, bias=bias), nn.MaxPool2d(2), *normalisation(norm, cout)]
    return [nn.Conv2d(cin, cout, 3, 2, 1, bias=bias), *normalisation(norm, cout)]


def scaled(channels: int, width: float) -> int:
    """Channels times width, at least 1; a changed width gives multiples of 8 above 16 (what vector units like)."""
    value = max(1, round(channels * width))
    return round(value / 8) * 8 if value > 16 and width != 1 else value


def need_size(name: str, in_shape: tuple[int, int, int], least: int) -> None:
    """Raise UserError when a picture is too small for an architecture."""
    if min(in_shape[1:]) < least:
        size = f"{in_shape[1]}x{in_shape[2]}"
        remedy = "Use another --backbone, such as mlp; --dataset.size resizes pictures of folder: and parquet:."
        raise must(f"images for {name}", f"at least {least}x{least}", size, remedy)
