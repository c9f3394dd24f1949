"""LeNet-5 with average pooling. Source: LeCun, Bottou, Bengio, Haffner 1998, figure 2 (here with ReLU)."""

from __future__ import annotations

from torch import nn

from engram.backbone.errors import must
from engram.backbone.nets.blocks import StaticBackbone, activation, need_size, normalisation, scaled
from engram.backbone.nets.options import ConvOptions, Normalisation


def lenet5(in_shape: tuple[int, int, int], options: ConvOptions) -> StaticBackbone:
    """Two 5x5 convolutions (6, 16) with pooling, then 120 and 84 units.

    The first convolution is padded below 32 pixels (as usual for 28x28), the second below 14, so that any picture
    from 4x4 up fits.
    """
    if options.depth is not None:
        raise must(
            "--backbone.depth", "left out for lenet5", options.depth, "Use vgg-tiny for a net of variable depth."
        )
    need_size("lenet5", in_shape, 4)
    norm = options.normalisation or "none"
    channels = (scaled(6, options.width), scaled(16, options.width))
    side = min(in_shape[1:])
    first = _stage(in_shape[0], channels[0], 2 if side < 32 else 0, options, norm)
    second = _stage(channels[0], channels[1], 2 if side < 28 else 0, options, norm)
    probe = StaticBackbone(in_shape, [first, second], nn.Flatten())
    units = (scaled(120, options.width), scaled(84, options.width))
    tail = nn.Sequential(
        nn.Flatten(),
        nn.Linear(probe.feature_dim, units[0]),
        activation(options.activation),
        nn.Linear(units[0], units[1]),
        activation(options.activation),
    )
    return StaticBackbone(in_shape, [first, second], tail)


def _stage(cin: int, cout: int, padding: int, options: ConvOptions, norm: Normalisation) -> nn.Sequential:
    stride = 2 if options.pooling == "stride" else 1
    layers: list[nn.Module] = [nn.Conv2d(cin, cout, 5, stride, padding, bias=norm == "none")]
    layers += [*normalisation(norm, cout), activation(options.activation)]
    if options.pooling != "stride":
        layers.append(nn.AvgPool2d(2) if options.pooling == "avg" else nn.MaxPool2d(2))
    return nn.Sequential(*layers)
