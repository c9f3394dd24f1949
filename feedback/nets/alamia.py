"""The shallow network in which Alamia et al. 2023 (Neural Networks 157, 280) looked for the role of feedback."""

from __future__ import annotations

from torch import nn

from engram.backbone.nets.blocks import StaticBackbone, need_size, scaled
from engram.feedback.nets.options import AlamiaOptions

CHANNELS, UNITS = (12, 18, 24), 120


def alamia(in_shape: tuple[int, int, int], options: AlamiaOptions) -> StaticBackbone:
    """Three 5x5 convolutions, and 120 units behind them; no normalisation.

    The output of a stage is that of its convolution, before its ReLU and pooling by maxima: there the paper's network
    predicts, and mixes. Pictures of 32x32 have 384 values in front of the units.
    """
    need_size("feedback.alamia", in_shape, 8)
    stages: list[nn.Module] = []
    channels = in_shape[0]
    for width in CHANNELS:
        before = [nn.ReLU(), nn.MaxPool2d(2)] if stages else []
        stages.append(nn.Sequential(*before, nn.Conv2d(channels, scaled(width, options.width), 5, padding=2)))
        channels = scaled(width, options.width)
    rest = [nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    flat = StaticBackbone(in_shape, stages, nn.Sequential(*rest)).feature_dim
    units = scaled(UNITS, options.width)
    return StaticBackbone(in_shape, stages, nn.Sequential(*rest, nn.Linear(flat, units), nn.ReLU()))
