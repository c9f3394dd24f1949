"""Invariant risk minimisation, without gradients of gradients."""

from __future__ import annotations

from torch import Tensor

from engram.backbone.contract import Batch, ObjectiveSetting, Outputs
from engram.causal.objectives.annealed import Annealed
from engram.causal.objectives.environment_options import IRMOptions
from engram.causal.objectives.environments import Groups, by_image
from engram.causal.slopes import entropies


class IRM(Annealed):
    """Penalises classifiers that an environment would rather have surer or less sure: IRMv1.

        P = mean_e D_e^2,    D_e = d R_e(s z) / d s at s = 1 = R_e - H_e

    z are the logits and R_e their mean cross-entropy in environment e, labels smoothed or not. Its slope in their scale
    has a closed form, ``E[sum_k (p_k - y_k) z_k]``, which is the cross-entropy less the entropy H_e of the answers p,
    so that one backward pass is enough.

    Args:
        options: how D_e^2 is estimated from a batch, and what the penalty counts for.

    Source: Arjovsky et al. 2019 (arXiv 1907.02893), section 3.1; products of two halves are those of its appendix D and
    of DomainBed (Gulrajani and Lopez-Paz 2021, arXiv 2007.01434).
    """

    def __init__(self, options: IRMOptions, setting: ObjectiveSetting) -> None:
        super().__init__(options, setting)
        self.estimate = options.estimate

    def penalty(self, groups: Groups, risks: Tensor, losses: Tensor, outputs: Outputs, batch: Batch) -> Tensor:
        slopes = losses - by_image(entropies(outputs.logits), batch)
        if self.estimate == "square":
            return groups.average(groups.means(slopes).square())
        if self.estimate == "halves":
            return groups.average(groups.halves().means(slopes).view(-1, 2).prod(1), 2)
        pairs = groups.sums(slopes).square() - groups.sums(slopes.square())
        return groups.average(pairs / (groups.sizes * (groups.sizes - 1)).clamp_min(1), 2)
