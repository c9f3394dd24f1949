"""PackNet: every task keeps a part of the weights, and prunes the rest for those to come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engram.backbone.contract import Batch, Learner, Row, Setting, Task
from engram.backbone.training.optim import lists
from engram.continual.isolation.options import PackNetOptions
from engram.continual.strategy import StrategyBase, total_bytes

FREE = 2**15 - 1
"""Owner of a weight no task has kept."""


class PackNet(StrategyBase):
    """Train on the free weights, prune the smallest of them layer by layer, train those left again, keep them for ever.

    A task's weights are those it kept and all of the tasks before it; what it pruned is zero for it and free for the
    next one. Biases, norms and whatever else is no matrix or kernel are learned in the first task alone, running
    statistics as well; the head's outputs belong to the task that uses them. After every step what does not belong to
    the task at hand is put back, bit for bit, so that neither momentum nor weight decay moves it, and tests of an
    earlier task give what they gave when it ended.

    Weights are swapped in place for tests (`enter_task`), so that nothing beside this class knows of masks. From the
    second task on BatchNorm normalises by fixed statistics: a learning rate that only batch statistics make bearable
    is too high then.

    Source: Mallya and Lazebnik 2018 (arXiv 1711.05769), section 3. There the fine-tuning of a task takes 20 epochs and
    that after pruning 10, which is a ``retrain`` of one third.
    """

    options: PackNetOptions
    reach = "own"

    def __init__(self, options: PackNetOptions, setting: Setting, model: nn.Module) -> None:
        super().__init__(options, setting, model)
        net: Any = model
        trained = [p for p in net.backbone.parameters() if p.requires_grad]
        self.weights: list[Tensor] = [p for p in trained if p.ndim >= 2]
        self.shared: list[Tensor] = [p for p in trained if p.ndim < 2]
        self.head: list[Tensor] = list(net.head.parameters())
        self.parameters = [*self.weights, *self.shared, *self.head]
        self.norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        self.owner = [torch.full_like(p, FREE, dtype=torch.int16) for p in self.weights]
        """For every weight the task that keeps it; `FREE` where none does."""
        self.pruned = -1
        """The last task that has pruned."""
        self.masks: list[Tensor] | None = None
        """1 where the task at hand may change a parameter, 0 elsewhere; None until they are needed."""
        self.held: list[Tensor] = []
        """What the parameters are where they must not change, 0 elsewhere."""
        self.whole: list[Tensor] | None = None
        """All weights, while those of one task alone are in the network."""

    def before_task(self, learner: Learner, task: Task) -> None:
        self.masks = None

    def before_forward(self, learner: Learner, batch: Batch) -> None:
        if learner.task > 0:
            for norm in self.norms:
                norm.eval()  # by the statistics of the first task, which stay

    @torch.no_grad()
    def after_backward(self, learner: Learner, batch: Batch) -> None:
        """Zero the gradients of what must not change, so that neither momentum nor the norm for clipping has them."""
        masks = self._masks(learner)
        pairs = [(p.grad, mask) for p, mask in zip(self.parameters, masks, strict=True) if p.grad is not None]
        lists._foreach_mul_([grad for grad, _ in pairs], [mask for _, mask in pairs])

    @torch.no_grad()
    def after_step(self, learner: Learner, batch: Batch) -> None:
        self._restore()
        if learner.step + 1 == self.prune_at(learner):
            self._prune(learner.task)

    def prune_at(self, learner: Learner) -> int:
        """How many steps of a task come before the pruning; all of them where nothing is trained again."""
        return max(1, learner.total_steps - round(self.options.retrain * learner.total_steps))

    def _masks(self, learner: Learner) -> list[Tensor]:
        if self.masks is None:
            mine = learner.task if self.pruned == learner.task else FREE
            first, rows = learner.task == 0, learner.head.table[learner.task]
            masks = [(owner == mine).to(p.dtype) for owner, p in zip(self.owner, self.weights, strict=True)]
            masks += [torch.full_like(p, float(first)) for p in self.shared]
            masks += [rows.to(p.dtype).view(-1, *[1] * (p.ndim - 1)).expand_as(p).contiguous() for p in self.head]
            self.masks = masks
            self.held = [p.detach() * (1 - mask) for p, mask in zip(self.parameters, masks, strict=True)]
        return self.masks

    def _restore(self) -> None:
        """Products with 0 and 1 and sums with 0 are exact."""
        assert self.masks is not None
        lists._foreach_mul_(self.parameters, self.masks)
        lists._foreach_add_(self.parameters, self.held)

    def _prune(self, task: int) -> None:
        """Set the smallest free weights of every layer to zero; those left are the task's."""
        for p, owner in zip(self.weights, self.owner, strict=True):
            free = owner == FREE
            order = torch.where(free, p.abs(), torch.inf).flatten().argsort(stable=True)
            least = torch.zeros_like(order, dtype=torch.bool)
            least[order[: round(self.options.prune * int(free.sum()))]] = True
            dropped = least.view_as(p)
            owner.masked_fill_(free & ~dropped, task)
            p.masked_fill_(dropped, 0.0)
        self.pruned, self.masks = task, None

    @torch.no_grad()
    def enter_task(self, learner: Learner, task: int) -> None:
        """Put the weights of one task into the network; all of them for the task at hand and those to come."""
        if self.whole is not None:
            lists._foreach_copy_(self.weights, self.whole)
            self.whole = None
        if task < learner.task:
            self.whole = [p.clone() for p in self.weights]
            keep = [(owner <= task).to(p.dtype) for owner, p in zip(self.owner, self.weights, strict=True)]
            lists._foreach_mul_(self.weights, keep)

    def tables(self) -> dict[str, list[Row]]:
        """The share of all weights that every task has kept, and what is free."""
        owner = torch.cat([owner.flatten() for owner in self.owner])
        shares = {f"task {task + 1}": (owner == task).double().mean().item() for task in range(self.setting.tasks)}
        return {"packnet": [{**shares, "free": (owner == FREE).double().mean().item()}]}

    def bytes(self) -> int:
        return super().bytes() + total_bytes([self.masks or [], self.held])

    def state_dict(self) -> dict[str, Any]:
        return {"owner": self.owner, "pruned": self.pruned}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.owner = [owner.to(self.setting.device, copy=True) for owner in saved["owner"]]
        self.pruned, self.masks = saved["pruned"], None
