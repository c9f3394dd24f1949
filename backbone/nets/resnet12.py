"""ResNet-12, the large network of the few-shot papers. Source: Oreshkin et al. 2018 (arXiv 1805.10123), appendix A."""

from __future__ import annotations

from torch import Tensor, nn

from engram.backbone.nets.blocks import Add, StaticBackbone, activation, conv_unit, normalisation, scaled
from engram.backbone.nets.options import ResNet12Options

CHANNELS, CONVOLUTIONS = (64, 128, 256, 512), 3


class Block(nn.Module):
    """Convolutions of 3x3 beside a shortcut of 1x1, then 2x2 pooling where ``pooled`` is set.

    Shapes: [B, C_in, H, W] -> [B, C_out, H // 2, W // 2], or [B, C_out, H, W].
    """

    def __init__(self, cin: int, cout: int, pooled: bool, options: ResNet12Options) -> None:
        super().__init__()
        norm = options.normalisation or "batch"
        bias, stride = norm == "none", 2 if pooled and options.pooling == "stride" else 1
        branch: list[nn.Module] = []
        for index in range((options.depth or CONVOLUTIONS) - 1):
            branch += conv_unit(cin if index == 0 else cout, cout, options.activation, norm)
        last = nn.Conv2d(cout if branch else cin, cout, 3, stride, 1, bias=bias)
        self.branch = nn.Sequential(*branch, last, *normalisation(norm, cout))
        self.shortcut = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=bias), *normalisation(norm, cout))
        self.add = Add()
        pool: list[nn.Module] = []
        if pooled and options.pooling != "stride":
            pool = [nn.MaxPool2d(2) if options.pooling == "max" else nn.AvgPool2d(2)]
        act = [activation(options.activation)]
        # in front of an activation that only rises a maximum is the same, for a quarter of the activation's work
        rising = options.pooling == "max" and options.activation in ("relu", "leaky-relu")
        self.end = nn.Sequential(*pool, *act) if rising else nn.Sequential(*act, *pool)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.add(self.branch(x), self.shortcut(x)))


def resnet12(in_shape: tuple[int, int, int], options: ResNet12Options) -> StaticBackbone:
    """Four blocks of 64, 128, 256 and 512 channels with three convolutions each (``depth``).

    Papers differ in the channels (MetaOptNet has 64, 160, 320 and 640), in the activation (there leaky) and in whether
    features are means or all pixels; 84x84 pixels leave 512 features, or 12,800. A block pools only while both sides
    of its picture are at least 2.
    """
    stages: list[nn.Module] = []
    cin, height, width = in_shape
    for base in CHANNELS:
        cout, pooled = scaled(base, options.width), min(height, width) >= 2
        stages.append(Block(cin, cout, pooled, options))
        if pooled:
            up = 1 if options.pooling == "stride" else 0  # a strided convolution rounds up, pooling down
            height, width = (height + up) // 2, (width + up) // 2
        cin = cout
    mean: list[nn.Module] = [nn.AdaptiveAvgPool2d(1)] if options.features == "mean" else []
    return StaticBackbone(in_shape, stages, nn.Sequential(*mean, nn.Flatten()))
