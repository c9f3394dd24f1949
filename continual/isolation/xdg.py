"""Context-dependent gating: every task has a random part of the units."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from engram.backbone.contract import Batch, Learner, Setting, Task
from engram.backbone.seeding import generator
from engram.continual.isolation.gates import gates_of
from engram.continual.isolation.holding import Hold
from engram.continual.isolation.options import XdGOptions
from engram.continual.isolation.reach import reaches
from engram.continual.strategy import StrategyBase, total_bytes


class XdG(StrategyBase):
    """A fixed random share of the units of every hidden layer is silent in a task: ``h <- h * g_task``, g in {0, 1}.

    Exactly that share, rounded, so that every task has as many units; of a convolution, channels. Meant to be combined
    with a strategy that keeps weights (``--strategies xdg,si``). Weights to and from silent units have no gradient and
    stay: a task begins without the momentum they have from those before (all of it, in the authors' code), and they do
    not decay.

    Source: Masse, Grant and Freedman 2018 (arXiv 1802.01569), "Context-dependent gating".
    """

    reach = "own"
    options: XdGOptions

    def __init__(self, options: XdGOptions, setting: Setting, model: nn.Module) -> None:
        super().__init__(options, setting, model)
        net: Any = model
        self.gates = gates_of(model, setting.frames)
        self.reaches = reaches(net.backbone, self.gates, setting.frames)
        self.parameters = {name: p for name, p in net.backbone.named_parameters() if p.requires_grad}
        self.still: Hold | None = None
        """What would decay without a gradient; None until it is needed."""
        self.masks = [self._masks(task) for task in range(setting.tasks)]

    def _masks(self, task: int) -> list[Tensor]:
        """One mask [channels] in {0, 1} per gate."""
        found = []
        for layer, gate in enumerate(self.gates.values()):
            order = torch.randperm(gate.channels, generator=generator(self.setting.seed, f"xdg {layer}", task))
            on = max(1, gate.channels - round(self.options.share * gate.channels))
            found.append(torch.zeros(gate.channels).index_fill_(0, order[:on], 1.0).to(self.setting.device))
        return found

    def before_task(self, learner: Learner, task: Task) -> None:
        self.still = None
        for p, acts in self._acts(learner):
            learner.optimizers.still(p, acts)

    def _acts(self, learner: Learner) -> list[tuple[nn.Parameter, Tensor]]:
        """Every parameter of the body, and where it acts in the task at hand."""
        masks = dict(zip(self.gates, self.masks[learner.task], strict=True))
        return [(p, self.reaches[name].acts(p, self.gates, masks)) for name, p in self.parameters.items()]

    def after_backward(self, learner: Learner, batch: Batch) -> None:
        if learner.options.weight_decay:
            self.still = self.still or Hold(self._acts(learner))
            self.still.take()

    def after_step(self, learner: Learner, batch: Batch) -> None:
        if self.still is not None:
            self.still.put_back()

    def enter_task(self, learner: Learner, task: int) -> None:
        for gate, mask in zip(self.gates.values(), self.masks[task], strict=True):
            gate.values["xdg"] = mask

    def bytes(self) -> int:
        return total_bytes(self.masks) + (0 if self.still is None else self.still.bytes())
