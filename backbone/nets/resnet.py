"""Residual networks. Source: He, Zhang, Ren, Sun 2016, figure 2 (post-activation), option B shortcuts."""

from __future__ import annotations

from torch import Tensor, nn

from engram.backbone.nets.blocks import (
    Add,
    StaticBackbone,
    activation,
    conv_unit,
    halving_conv,
    need_size,
    normalisation,
    scaled,
)
from engram.backbone.nets.options import ConvOptions, Normalisation


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; halves the picture when ``halve``.

    Shapes: [B, C_in, H, W] -> [B, C_out, H, W], or [B, C_out, H // 2, W // 2] when halving.
    """

    def __init__(self, cin: int, cout: int, halve: bool, options: ConvOptions, norm: Normalisation) -> None:
        super().__init__()
        bias = norm == "none"
        if halve:
            first = [*halving_conv(cin, cout, norm, options.pooling), activation(options.activation)]
        else:
            first = conv_unit(cin, cout, options.activation, norm)
        second = [nn.Conv2d(cout, cout, 3, padding=1, bias=bias), *normalisation(norm, cout)]
        self.branch = nn.Sequential(*first, *second)
        self.shortcut: nn.Module = nn.Identity()
        if halve or cin != cout:
            pool: list[nn.Module] = [nn.AvgPool2d(2)] if halve and options.pooling == "avg" else []
            pool = [nn.MaxPool2d(2)] if halve and options.pooling == "max" else pool
            stride = 2 if halve and not pool else 1
            conv = nn.Conv2d(cin, cout, 1, stride, bias=bias)
            self.shortcut = nn.Sequential(*pool, conv, *normalisation(norm, cout))
        self.add = Add()
        self.act = activation(options.activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.add(self.branch(x), self.shortcut(x)))


def resnet_tiny(in_shape: tuple[int, int, int], options: ConvOptions) -> StaticBackbone:
    """Stages of 16, 32 and 64 channels with one block each."""
    return _resnet("resnet-tiny", in_shape, (16, 32, 64), 1, options)


def resnet18(in_shape: tuple[int, int, int], options: ConvOptions) -> StaticBackbone:
    """Stages of 64, 128, 256 and 512 channels with two blocks each; the paper's halve with strides (``pooling``)."""
    return _resnet("resnet18", in_shape, (64, 128, 256, 512), 2, options)


def _resnet(
    name: str, in_shape: tuple[int, int, int], widths: tuple[int, ...], blocks: int, options: ConvOptions
) -> StaticBackbone:
    """A 3x3 stem at full size, then stages of residual blocks (``depth`` sets how many), halving between them."""
    need_size(name, in_shape, 8)
    whole = 2 ** (len(widths) - 1)
    norm = options.normalisation or "batch"
    channels = [scaled(base, options.width) for base in widths]
    stages: list[nn.Module] = [nn.Sequential(*conv_unit(in_shape[0], channels[0], options.activation, norm))]
    if any(size % whole for size in in_shape[1:]):
        # the two paths of a halving block round odd sizes differently unless the picture is padded first
        pad = (-in_shape[2] % whole, -in_shape[1] % whole)
        stages[0] = nn.Sequential(nn.ZeroPad2d((0, pad[0], 0, pad[1])), *stages[0])  # type: ignore[misc]
    cin = channels[0]
    for index, cout in enumerate(channels):
        made = []
        for block in range(options.depth or blocks):
            made.append(ResidualBlock(cin, cout, index > 0 and block == 0, options, norm))
            cin = cout
        stages.append(nn.Sequential(*made))
    tail = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return StaticBackbone(in_shape, stages, tail)
