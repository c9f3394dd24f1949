"""Hard attention to the task: every task learns which units it uses, and what they compute stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engram.backbone.contract import Batch, Learner, Row, Setting, Task
from engram.backbone.seeding import generator
from engram.continual.isolation.gates import gates_of
from engram.continual.isolation.holding import Hold
from engram.continual.isolation.options import HATOptions
from engram.continual.isolation.reach import reaches
from engram.continual.strategy import StrategyBase

LARGEST = 6.0
"""Embeddings stay within this, where a sigmoid still has a slope."""
COMPENSATED = 50.0
"""Up to this |s e| the gradient of an embedding is compensated in full."""


class HAT(StrategyBase):
    """Gates a_t = sigmoid(s e_t) on the hidden units, learned with the weights; s goes from 1/s_max to s_max.

    With A the largest gates of all tasks before, a weight from unit j to unit i moves by 1 - min(A_i, A_j) of what the
    optimizer would do. That is equation 3 for plain descent; of any other optimizer the step is scaled and not the
    gradient, because momentum and decay move a weight without a gradient and Adam divides a constant factor out again.
    With ``--clip`` the norm is that of whole gradients, those of weights that must not move included.
    The loss has ``c sum(a (1 - A)) / sum(1 - A)`` added. Gates shut for every task before are free to take.

    With p = dL/da the compensated gradient of an embedding (equation 6) is ``s_max sigmoid'(e) p``, in closed form; it
    fades beyond |s e| = 50, where the source clamps its cosh. It is followed by plain descent with a rate of its own.
    A head's outputs belong to the task that uses them. Running statistics are those of the first task.

    Which units a weight connects is read off the network's graph (`engram.continual.isolation.reach`). Where there is
    none, only the gate behind a layer counts, if it has one; weights without any stay from the second task on.

    Source: Serra, Suris, Miron and Karatzoglou 2018 (arXiv 1801.01423), equations 1 to 7.
    """

    options: HATOptions
    reach = "own"

    def __init__(self, options: HATOptions, setting: Setting, model: nn.Module) -> None:
        super().__init__(options, setting, model)
        net: Any = model
        self.gates = gates_of(model, setting.frames)
        self.embeddings = [self._begin(layer, gate.channels) for layer, gate in enumerate(self.gates.values())]
        """[tasks, channels] per gate."""
        self.used = [torch.zeros(gate.channels, device=setting.device) for gate in self.gates.values()]
        """The largest gates of the tasks so far."""
        self.learned = 0
        """How many tasks those are."""
        self.reaches = reaches(net.backbone, self.gates, setting.frames)
        self.parameters = {name: p for name, p in net.backbone.named_parameters() if p.requires_grad}
        self.head: list[Tensor] = list(net.head.parameters())
        self.norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        self.guarded: Hold | None = None
        """The parameters of which something must not move in the task at hand; None until they are needed."""
        self.attention: list[Tensor] = []
        self.scale = 0.0

    def _begin(self, layer: int, channels: int) -> Tensor:
        random = generator(self.setting.seed, "hat", layer)
        return torch.randn(self.setting.tasks, channels, generator=random).to(self.setting.device)

    def before_task(self, learner: Learner, task: Task) -> None:
        self.guarded = None

    @torch.no_grad()
    def enter_task(self, learner: Learner, task: int) -> None:
        self._open([(self.options.s_max * e[task]).sigmoid() for e in self.embeddings])

    def _open(self, values: list[Tensor]) -> None:
        for gate, value in zip(self.gates.values(), values, strict=True):
            gate.values["hat"] = value

    def before_forward(self, learner: Learner, batch: Batch) -> None:
        if learner.task > 0:
            for norm in self.norms:
                norm.eval()
        self.scale = annealed(learner.step, learner.total_steps, learner.steps_per_epoch, self.options.s_max)
        self.attention = [(self.scale * e[learner.task]).sigmoid().requires_grad_() for e in self.embeddings]
        self._open(self.attention)

    @torch.no_grad()
    def after_backward(self, learner: Learner, batch: Batch) -> None:
        rows = [e[learner.task] for e in self.embeddings]
        slopes = [torch.zeros_like(a) if a.grad is None else a.grad for a in self.attention]
        free = [1 - used for used in self.used]
        share = self.options.c / sum(each.sum() for each in free).clamp_min(1.0)  # type: ignore[union-attr]
        for row, slope, each in zip(rows, slopes, free, strict=True):
            step = compensated(row, slope + share * each, self.scale, self.options.s_max)
            row.sub_(step, alpha=self.options.lr).clamp_(-LARGEST, LARGEST)
        self._guarded(learner).take()

    def after_step(self, learner: Learner, batch: Batch) -> None:
        self._guarded(learner).put_back()

    def _guarded(self, learner: Learner) -> Hold:
        if self.guarded is None:
            rows, used = learner.head.table[learner.task], dict(zip(self.gates, self.used, strict=True))
            pairs = [(p, rows.view(-1, *[1] * (p.ndim - 1))) for p in self.head]
            for name, p in self.parameters.items() if self.learned else ():
                pairs.append((p, 1 - self.reaches[name].acts(p, self.gates, used)))
            self.guarded = Hold(pairs)
        return self.guarded

    @torch.no_grad()
    def after_task(self, learner: Learner, task: Task) -> None:
        self.enter_task(learner, learner.task)
        final = [gate.values["hat"] for gate in self.gates.values()]
        self.used = [torch.maximum(used, value) for used, value in zip(self.used, final, strict=True)]
        self.learned = max(self.learned, learner.task + 1)

    def tables(self) -> dict[str, list[Row]]:
        """The share of every layer's units that the tasks so far use."""
        rows: list[Row] = []
        for task in range(self.learned):
            used = [(e[: task + 1] > 0).any(0) for e in self.embeddings]
            row = {name: each.double().mean().item() for name, each in zip(self.gates, used, strict=True)}
            rows.append({"after": f"task {task + 1}", "all": torch.cat(used).double().mean().item(), **row})
        return {"hat": rows}

    def bytes(self) -> int:
        return super().bytes() + (self.guarded.bytes() if self.guarded else 0)

    def state_dict(self) -> dict[str, Any]:
        return {"embeddings": self.embeddings, "used": self.used, "learned": self.learned}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        device = self.setting.device
        self.embeddings = [e.to(device, copy=True) for e in saved["embeddings"]]
        self.used = [used.to(device, copy=True) for used in saved["used"]]
        self.learned, self.guarded = saved["learned"], None


def annealed(step: int, total: int, epoch: int, s_max: float) -> float:
    """The scale s at a step of a task: from 1/s_max to s_max in every epoch.

    Args:
        step: from 0.
        total: steps of the task.
        epoch: steps of an epoch; where they do not fill the task, it is cut into stretches of about that length.

    Source: Serra et al. 2018, equation 4.

    >>> [annealed(step, 6, 3, 4.0) for step in range(6)]
    [0.25, 2.125, 4.0, 0.25, 2.125, 4.0]
    """
    count = max(1, round(total / epoch))
    place = step * count // total
    first, end = -(-place * total // count), -(-(place + 1) * total // count)
    done = (step - first) / (end - first - 1) if end - first > 1 else 1.0
    return 1 / s_max + (s_max - 1 / s_max) * done


def compensated(embedding: Tensor, slope: Tensor, scale: float, s_max: float) -> Tensor:
    """The gradient that an embedding follows, for ``slope`` dL/da: ``s_max sigmoid'(e) dL/da``; all [units].

    It is ``s_max (cosh(s e) + 1) / (s (cosh(e) + 1))`` times ``dL/de = s sigmoid'(s e) dL/da``, of which only
    ``min(1, exp(50 - |s e|))`` is left where the source clamps s e in the cosh.

    Source: Serra et al. 2018, equation 6.
    """
    gate = embedding.sigmoid()
    fade = (COMPENSATED - (scale * embedding).abs()).clamp(max=0.0).exp()
    return s_max * gate * (1 - gate) * fade * slope
