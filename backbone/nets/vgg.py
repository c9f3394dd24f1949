"""Small VGG networks. Source: Simonyan and Zisserman 2015 (stacked 3x3 convolutions), with BatchNorm."""

from __future__ import annotations

from torch import nn

from engram.backbone.nets.blocks import StaticBackbone, conv_unit, need_size, scaled
from engram.backbone.nets.options import ConvOptions


def vgg_tiny(in_shape: tuple[int, int, int], options: ConvOptions) -> StaticBackbone:
    """One 3x3 convolution per stage: 16, 32, 64 channels."""
    return _vgg("vgg-tiny", in_shape, (16, 32, 64), options.depth or 1, options)


def vgg_small(in_shape: tuple[int, int, int], options: ConvOptions) -> StaticBackbone:
    """Two 3x3 convolutions per stage: 32-32, 64-64, 128-128 channels."""
    return _vgg("vgg-small", in_shape, (32, 64, 128), options.depth or 2, options)


def _vgg(
    name: str, in_shape: tuple[int, int, int], channels: tuple[int, ...], depth: int, options: ConvOptions
) -> StaticBackbone:
    need_size(name, in_shape, 8)
    norm = options.normalisation or "batch"
    stages, cin = [], in_shape[0]
    for base in channels:
        cout = scaled(base, options.width)
        layers: list[nn.Module] = []
        for index in range(depth):
            stride = 2 if options.pooling == "stride" and index == depth - 1 else 1
            layers += conv_unit(cin, cout, options.activation, norm, stride)
            cin = cout
        if options.pooling != "stride":
            layers.append(nn.AvgPool2d(2) if options.pooling == "avg" else nn.MaxPool2d(2))
        stages.append(nn.Sequential(*layers))
    tail = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return StaticBackbone(in_shape, stages, tail)
