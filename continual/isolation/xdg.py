"""Context-dependent gating: every task has a random part of the units."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backbone.seeding import generator
from continual.isolation.gates import gates_of
from continual.isolation.options import XdGOptions
from continual.learner import Learner
from continual.strategy import Setting, Strategy


class XdG(Strategy):
    """A fixed random share of the units of every hidden layer is silent in a task: ``h <- h * g_task``, g in {0, 1}.

    Exactly that share, rounded, so that every task has as many units; of a convolution, channels. Meant to be combined
    with a strategy that keeps weights (``--strategies xdg,si``).

    Source: Masse, Grant and Freedman 2018 (arXiv 1802.01569), "Context-dependent gating".
    """

    options: XdGOptions

    def __init__(self, options: XdGOptions, setting: Setting, model: nn.Module) -> None:
        super().__init__(options, setting, model)
        self.gates = gates_of(model, setting.frames)
        self.masks = [self._masks(task) for task in range(setting.tasks)]

    def _masks(self, task: int) -> list[Tensor]:
        """One mask [channels] in {0, 1} per gate."""
        found = []
        for layer, gate in enumerate(self.gates.values()):
            order = torch.randperm(gate.channels, generator=generator(self.setting.seed, f"xdg {layer}", task))
            on = max(1, gate.channels - round(self.options.share * gate.channels))
            found.append(torch.zeros(gate.channels).index_fill_(0, order[:on], 1.0).to(self.setting.device))
        return found

    def enter_task(self, learner: Learner, task: int) -> None:
        for gate, mask in zip(self.gates.values(), self.masks[task], strict=True):
            gate.values["xdg"] = mask

    def bytes(self) -> int:
        return sum(mask.numel() * mask.element_size() for masks in self.masks for mask in masks)
