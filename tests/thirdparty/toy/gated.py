"""A recurrent network of any network in stages: what the last stage saw gates the first one in the next step."""

from __future__ import annotations

import torch
from torch import nn

from engram.backbone.contract import Prepared, Staged
from engram.backbone.nets.needs import need
from engram.backbone.nets.plain import copied
from engram.backbone.nets.taps import at_step, stage_values


class Gated(nn.Module):
    """``first(x) * (1 + tanh(W top))``, where ``top`` is the last stage of the step before, averaged over its places.

    W begins as zero: the network is then the one it was made from, at every step.
    """

    readout = "last"

    def __init__(self, net, steps):
        super().__init__()
        self.net, self.steps = net, steps
        self.in_shape, self.feature_dim, self.stage_channels = net.in_shape, net.feature_dim, net.stage_channels
        self.gate = nn.Linear(self.stage_channels[-1], self.stage_channels[0], bias=False)
        nn.init.zeros_(self.gate.weight)

    def prepare(self, images):
        if isinstance(self.net, Prepared):
            self.net.prepare(images)

    def forward_steps(self, x, tap=None):
        found, top = [], None
        for step, images in enumerate(x.unbind(1) if x.ndim == 5 else [x] * self.steps):
            with at_step(self, tap, step) as show:
                value = images
                for index in range(len(self.stage_channels)):
                    value = self.net.apply_stage(index, value)
                    if index == 0 and top is not None:
                        value = value * (1 + torch.tanh(self.gate(top)))[..., None, None]
                    value = show(index, value)
                top = value.mean((2, 3))
                found.append(show(None, self.net.apply_tail(value)))
        return torch.stack(found)

    def stage_steps(self, x):
        return stage_values(self, x)

    def stages(self, x):
        return [stage.mean(0) for stage in self.stage_steps(x)]

    def forward(self, x):
        return self.forward_steps(x)[-1]


def gated(backbone, options, saved=None):
    net = copied(need(backbone, Staged, "toy.gated"))
    return Gated(net, options.steps).train(backbone.training)
