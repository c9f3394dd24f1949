"""Conv4-64, the network of the few-shot papers. Source: Vinyals et al. 2016, section 4.1; Snell et al. 2017, 3.1."""

from __future__ import annotations

from torch import nn

from engram.backbone.nets.blocks import StaticBackbone, conv_unit, scaled
from engram.backbone.nets.options import Conv4Options

BLOCKS, CHANNELS = 4, 64


def conv4(in_shape: tuple[int, int, int], options: Conv4Options) -> StaticBackbone:
    """Four blocks of a 3x3 convolution to 64 channels, BatchNorm, ReLU and 2x2 pooling; what is left is flattened.

    28x28 pixels leave 64 features, 84x84 leave 1,600. A block pools only while both sides of its picture are at least
    2, so that pictures of any size go through: of 8x8 the last block keeps the one pixel that is left.
    """
    norm = options.normalisation or "batch"
    cout = scaled(CHANNELS, options.width)
    cin, (height, width) = in_shape[0], in_shape[1:]
    stages = []
    for _ in range(BLOCKS):
        pooled = min(height, width) >= 2
        layers: list[nn.Module] = []
        for index in range(options.depth or 1):
            last = index == (options.depth or 1) - 1
            stride = 2 if pooled and last and options.pooling == "stride" else 1
            layers += conv_unit(cin, cout, options.activation, norm, stride)
            cin = cout
        if pooled and options.pooling == "max":
            # in front of an activation that only rises it is the same, for a quarter of the activation's work
            rising = options.activation in ("relu", "leaky-relu")
            layers.insert(len(layers) - rising, nn.MaxPool2d(2))
        elif pooled and options.pooling == "avg":
            layers.append(nn.AvgPool2d(2))
        if pooled:
            up = 1 if options.pooling == "stride" else 0  # a strided convolution rounds up, pooling down
            height, width = (height + up) // 2, (width + up) // 2
        stages.append(nn.Sequential(*layers))
    return StaticBackbone(in_shape, stages, nn.Flatten())
