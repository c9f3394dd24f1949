from __future__ import annotations

import torch
import torch.nn.functional as F

from engram.backbone.contract import Objective


class Groups(Objective):
    """The losses of groups, weighed by how bad they were so far, after Sagawa et al. 2020, algorithm 1."""

    columns = ("group",)

    def __init__(self, options, setting):
        groups = len(torch.unique(torch.as_tensor(setting.data.columns["group"])))
        self.rate, self.weights = options.rate, torch.full((groups,), 1 / groups, device=setting.device)

    def __call__(self, outputs, batch, step):
        losses = F.cross_entropy(outputs.logits, batch.labels, reduction="none")
        groups = batch.columns["group"]
        counts = torch.bincount(groups, minlength=len(self.weights)).clamp(min=1)
        means = torch.zeros_like(self.weights).index_add(0, groups, losses) / counts
        self.weights = self.weights * (self.rate * means.detach()).exp()
        self.weights = self.weights / self.weights.sum()
        return (self.weights * means).sum()

    def state_dict(self):
        return {"weights": self.weights}

    def load_state_dict(self, saved):
        self.weights = saved["weights"].to(self.weights)
