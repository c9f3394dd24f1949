"""Group-robust optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import Batch, ObjectiveSetting, Outputs
from engram.backbone.data.sets import Split
from engram.causal.objectives.environment_options import GroupDROOptions
from engram.causal.objectives.environments import Comparing, by_image


class GroupDRO(Comparing):
    """The worst group's mean loss, by weights of groups that follow their losses.

        q_g <- q_g exp(eta (R_g + C / sqrt(n_g))), normalised;    L = sum_g q_g R_g

    n_g is how many training images a group has. In a step the groups that the batch has share out the weight that they
    have together: a group that is missing keeps its own, and adds nothing to the loss. Batches should have all groups
    (``--balance group``).

    Source: Sagawa et al. 2020 (arXiv 1911.08731), algorithm 1 and section 3.3.
    """

    def __init__(self, options: GroupDROOptions, setting: ObjectiveSetting) -> None:
        self.options = options
        super().__init__(options.column, setting)

    def enter(self, data: Split) -> None:
        super().enter(data)
        self.logs = torch.zeros_like(self.sizes).log_softmax(0)

    @property
    def weights(self) -> Tensor:
        """q, [G]; their sum is 1."""
        return self.logs.exp()

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        groups = self.groups(batch)
        risks = groups.means(by_image(self.losses(outputs, batch), batch))
        self._follow(risks.detach().float(), groups.sizes > 0)
        return (self.weights * risks).sum()

    def _follow(self, risks: Tensor, there: Tensor) -> None:
        """In logarithms, in which no weight is ever lost."""
        moved = self.logs + self.options.rate * (risks + self.options.adjustment / self.sizes.sqrt())
        absent = -float("inf")
        before, after = (each.where(there, absent).logsumexp(0) for each in (self.logs, moved))
        self.logs = (moved + before - after).where(there, self.logs).log_softmax(0)

    def state_dict(self) -> dict[str, Any]:
        return {"logs": self.logs}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.logs = saved["logs"].to(self.device, copy=True)
