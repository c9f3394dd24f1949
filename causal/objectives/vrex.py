"""Variance risk extrapolation."""

from __future__ import annotations

from torch import Tensor

from engram.backbone.contract import Batch, Outputs
from engram.causal.objectives.annealed import Annealed
from engram.causal.objectives.environments import Groups


class VREx(Annealed):
    """Penalises the variance of the environments' mean losses R_e: ``P = mean_e (R_e - mean R)^2``.

    Source: Krueger et al. 2021 (arXiv 2003.00688), equation 8.
    """

    def penalty(self, groups: Groups, risks: Tensor, losses: Tensor, outputs: Outputs, batch: Batch) -> Tensor:
        return groups.average((risks - groups.average(risks)).square())
