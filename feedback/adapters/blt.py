"""The adapter ``feedback.blt``: bottom-up, lateral and top-down connections, whose sum is rectified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.errors import must
from engram.feedback.connections import Connection, name_of
from engram.feedback.network.local_response import local_response
from engram.feedback.network.network import FeedbackNetwork, wrapped
from engram.feedback.network.paths import added
from engram.feedback.network.rectifying import rectified
from engram.feedback.options import BLTOptions


class Convolved(nn.Module):
    """What a stage gave, rectified, and a convolution that begins as zero.

    Args:
        weights: the convolution, or transposed convolution, without a bias: a stage has its own.
        lrn: normalise across channels between the two (`engram.feedback.network.local_response`).

    Source: Spoerer et al. 2017, equations 1 to 6.
    """

    def __init__(self, weights: nn.Conv2d | nn.ConvTranspose2d, lrn: bool) -> None:
        super().__init__()
        self.conv, self.lrn = weights, lrn
        nn.init.zeros_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        if self.lrn:
            x = local_response(x)
        return self.conv(x)


class BLT(FeedbackNetwork):
    """Lateral and top-down connections that are convolutions: ``h_m(t) = y_m(t) + L_m r_m(t-1) + T_m r_{m+1}(t-1)``.

    y_m is what the stage gives, and r_m the rectification of h_m, normalised across channels with ``lrn``. L_m, within
    a stage, is a k x k convolution. T_m is a transposed convolution whose kernel and stride are the ratio of the two
    sizes, k x k where they are equal; where they do not divide, and from features and logits, it is the normalised 1x1
    convolution of ``feedback.additive``.

    Around a network whose stages end before their nonlinearity, as those of Spoerer et al. do, the next stage is given
    h_m, and the whole is the paper's BLT. Around any other one whose stages end with a rectification it is given r_m;
    where they end with another nonlinearity h_m, which is not rectified. All convolutions begin as zero, so that each
    of them begins as the wrapped network, at every step.

    Source: Spoerer, McClure and Kriegeskorte 2017 (doi 10.3389/fpsyg.2017.01551), equations 1 to 6.
    """

    options: BLTOptions
    bound = "what leads back is rectified, and with --lrn normalised across channels, by no neurons"

    def __init__(self, inner: nn.Module, options: BLTOptions) -> None:
        if options.kernel % 2 == 0:
            raise must("--kernel", "odd, so that a kernel has a middle", options.kernel, f"Use {options.kernel + 1}.")
        super().__init__(inner, options)
        self.rectified = rectified(inner)

    def usual(self) -> tuple[Connection, ...]:
        stages = range(len(self.stage_channels))
        within = [Connection(name_of(stage), stage) for stage in stages]
        return (*within, *(Connection(name_of(stage + 1), stage) for stage in stages[:-1]))

    def path(self, connection: Connection) -> nn.Module:
        source, target = connection.stage, connection.target
        if source is None:
            return super().path(connection)
        (channels, *small), (given, *large) = self.stage_shapes[source], self.stage_shapes[target]
        if small == large:
            same = nn.Conv2d(channels, given, self.options.kernel, padding=self.options.kernel // 2, bias=False)
            return Convolved(same, self.options.lrn)
        if any(big % few for big, few in zip(large, small, strict=True)):
            return super().path(connection)
        ratio = (large[0] // small[0], large[1] // small[1])
        return Convolved(nn.ConvTranspose2d(channels, given, ratio, ratio, bias=False), self.options.lrn)

    def combine(self, stage: int, value: Tensor, tops: Sequence[Tensor]) -> Tensor:
        total = added(value, tops)
        return F.relu(total) if self.rectified[stage] else total


def blt(backbone: nn.Module, options: BLTOptions, saved: Mapping[str, Tensor] | None = None) -> BLT:
    """Lateral and top-down connections around a copy of a network in stages.

    Raises:
        UserError: it is not in stages, or does not have the connections or steps.
    """
    return BLT(wrapped(backbone, "feedback.blt"), options).train(backbone.training)
