"""The adapter ``feedback.lateral``: stages that go over what they gave, again and again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from engram.feedback.adapters.additive import Additive
from engram.feedback.connections import Connection, name_of, within
from engram.feedback.network.network import wrapped
from engram.feedback.network.norms import StepNorm
from engram.feedback.network.rectifying import rectified
from engram.feedback.options import LateralOptions


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, each with a BatchNorm; ReLU between them. The last BatchNorm begins as zero.

    Args:
        channels: at both ends.
        expansion: how many times as many there are between the convolutions.
        norm: makes a BatchNorm for so many channels, or one for each step.

    Shapes: [B, C, H, W] -> [B, C, H, W].
    """

    def __init__(self, channels: int, expansion: int, norm: Any) -> None:
        super().__init__()
        wide = channels * expansion
        last = nn.BatchNorm2d(channels)
        nn.init.zeros_(last.weight)
        self.layers = nn.Sequential(
            *(nn.Conv2d(channels, wide, 1, bias=False), norm(nn.BatchNorm2d(wide)), nn.ReLU()),
            *(nn.Conv2d(wide, wide, 3, padding=1, bias=False), norm(nn.BatchNorm2d(wide)), nn.ReLU()),
            *(nn.Conv2d(wide, channels, 1, bias=False), norm(last)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Lateral(Additive):
    """Recurrence within stages: ``r(t) = ReLU(s(t) + f_t(r(t-1)))`` with ``s(t) = r(t-1) + y(t) - y(t-1)``.

    y is what the stage gives and f a `Bottleneck`, whose weights are those of all steps and whose norms are a step's
    own. While what a stage is given stays the same, ``s(t) = r(t-1)``: a residual block that goes over its own output.
    What changes in it, because of earlier stages or of a moving picture, is added. In the first step r is y.

    The sum is rectified where the wrapped network rectifies. f begins as zero, so that the network begins as the
    wrapped one, at every step.

    Source: Kubilius et al. 2019 (arXiv 1909.06161), CORnet-S: blocks of the areas V2, V4 and IT, with ``expansion`` 4.
    """

    options: LateralOptions
    bound = "its blocks rectify between their convolutions, by no neurons"

    def __init__(self, inner: nn.Module, options: LateralOptions) -> None:
        super().__init__(inner, options)
        self.rectified = rectified(inner)
        self.step_norms += [module for module in self.paths.modules() if isinstance(module, StepNorm)]

    def usual(self) -> tuple[Connection, ...]:
        stages = range(len(self.stage_channels))
        return tuple(Connection(name_of(stage), stage) for stage in stages[1:] or stages)

    def _connections(self) -> tuple[Connection, ...]:
        return within(super()._connections())

    def path(self, connection: Connection) -> nn.Module:
        stage = connection.target
        first = 1 + (stage if self.options.unrolling == "biological" else 0)

        def norm(each: nn.BatchNorm2d) -> nn.Module:
            return StepNorm(each, self.steps, first) if self.options.norm == "step" else each

        return Bottleneck(self.stage_channels[stage], self.options.expansion, norm)

    def output(self, stage: int, drive: Tensor, changed: Tensor, memory: dict[str, Any]) -> Tensor:
        connection = Connection(name_of(stage), stage)
        if connection not in self.connections:
            return changed
        carried = memory.get(str(connection))  # what r(t-1) is more than y(t-1)
        value = changed if carried is None else changed + carried
        value = F.relu(value) if self.rectified[stage] else value
        memory[str(connection)] = value - drive
        return value


def lateral(backbone: nn.Module, options: LateralOptions, saved: Mapping[str, Tensor] | None = None) -> Lateral:
    """Recurrence within the stages of a copy of a network.

    Raises:
        UserError: it is not in stages, or does not have the connections or steps.
    """
    return Lateral(wrapped(backbone, "feedback.lateral"), options).train(backbone.training)
