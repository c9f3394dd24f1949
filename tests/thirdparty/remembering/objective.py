import torch
import torch.nn.functional as F

from engram.backbone.contract import Objective


class Worst(Objective):
    """Groups are weighted by ``q <- q exp(rate loss)``, normalised: Sagawa et al. 2020, algorithm 1."""

    def __init__(self, options, setting):
        self.column, self.rate = options.column, options.rate
        self.columns = (options.column,)
        groups = len(set(setting.data.columns.get(options.column, ())))
        self.weights = torch.full((groups,), 1 / max(groups, 1), device=setting.device)

    def __call__(self, outputs, batch, step):
        losses = F.cross_entropy(outputs.logits, batch.labels, reduction="none")
        groups, count = batch.columns[self.column], len(self.weights)
        sums = torch.zeros(count, device=losses.device).index_add_(0, groups, losses)
        each = sums / torch.bincount(groups, minlength=count).clamp_min(1)
        self.weights = self.weights * (self.rate * each.detach()).exp()
        self.weights = self.weights / self.weights.sum()
        return (self.weights * each).sum()

    def state_dict(self):
        return {"weights": self.weights}

    def load_state_dict(self, saved):
        self.weights = saved["weights"].clone()
