"""The bottom-up network of Spoerer, McClure and Kriegeskorte 2017, which other connections are added to."""

from __future__ import annotations

from torch import nn

from engram.backbone.nets.blocks import StaticBackbone, need_size
from engram.feedback.nets.options import SpoererOptions
from engram.feedback.network.local_response import LocalResponse


def spoerer(in_shape: tuple[int, int, int], options: SpoererOptions) -> StaticBackbone:
    """Two convolutions with ReLU, local response normalisation and 2x2 maxima between, and the maximum of every map.

    The stages end before their ReLU: what ``feedback.blt`` adds to them is part of the sum that the ReLU sees, as in
    the paper. With nothing added the network is the paper's B.

    Raises:
        UserError: pictures are too small to pool.

    Source: doi 10.3389/fpsyg.2017.01551.
    """
    need_size("feedback.spoerer", in_shape, 2)
    maps, kernel = options.maps, options.kernel
    first = nn.Conv2d(in_shape[0], maps, kernel, padding=kernel // 2)
    second = nn.Conv2d(maps, maps, kernel, padding=kernel // 2)
    between, behind = ([nn.ReLU(), *([LocalResponse()] if options.lrn else [])] for _ in range(2))
    tail = nn.Sequential(*behind, nn.AdaptiveMaxPool2d(1), nn.Flatten())
    return StaticBackbone(in_shape, [first, nn.Sequential(*between, nn.MaxPool2d(2), second)], tail)
