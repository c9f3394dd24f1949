"""Experience replay with asymmetric cross-entropy: new classes do not push old ones away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.contract import Batch, Learner, Setting
from engram.continual.replay.options import ERACEOptions
from engram.continual.replay.rehearsal import Rehearsal
from engram.continual.tasks.heads import MASKED


class ERACE(Rehearsal):
    """Rows of the task choose among the classes present in their batch, rows of the buffer among all classes so far.

    The loss is the sum of the two means. Rows of the buffer make a forward pass of their own, as in the authors' code.

    Source: Caccia et al. 2022 (arXiv 2104.05025), equation 3.
    """

    name: ClassVar[str] = "er-ace"
    by_rows = True
    options: ERACEOptions

    def __init__(self, options: ERACEOptions, setting: Setting, model: nn.Module) -> None:
        super().__init__(options, setting, model)
        self.seen = torch.zeros(setting.outputs, dtype=torch.bool, device=setting.device)
        """[outputs], the classes so far."""

    def loss(self, learner: Learner, batch: Batch, loss: Tensor) -> Tensor:
        logits, labels = batch.logits[: batch.own], batch.labels[: batch.own]
        present = torch.zeros_like(self.seen).index_fill_(0, labels, True)
        self.seen |= present
        among = F.cross_entropy(logits.masked_fill(~present, MASKED), labels, reduction="sum")
        loss = loss + (among - batch.losses[: batch.own].sum()) / len(batch.losses)
        if not self.ready:
            return loss
        images, rows = self.recall(learner)
        recalled = learner.forward(images).masked_fill(~self.seen, MASKED)
        return loss + learner.losses(recalled, rows.labels, rows.tasks).mean()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "seen": self.seen}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        super().load_state_dict(saved)
        self.seen.copy_(saved["seen"])
