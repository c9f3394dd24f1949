"""Features that are to be distributed alike in all environments."""

from __future__ import annotations

from torch import Tensor

from engram.backbone.contract import Batch, ObjectiveSetting, Outputs, Wanted
from engram.backbone.data.columns import ENVIRONMENT
from engram.causal.objectives.environment_options import MatchingOptions
from engram.causal.objectives.environments import Comparing, Groups


class Matching(Comparing):
    """The mean over environments of their mean loss, and ``penalty`` times the mean over pairs of environments of how
    differently their features are distributed, those in front of the head.

    Environments with fewer than two images in a batch are in no pair.
    """

    wants: tuple[Wanted, ...] = ("features",)

    def __init__(self, options: MatchingOptions, setting: ObjectiveSetting) -> None:
        super().__init__(ENVIRONMENT, setting)
        self.weight = options.penalty

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        assert outputs.features is not None  # wanted
        groups, features = self.groups(batch), outputs.features.flatten(1).float()
        risk = groups.average(groups.means(self.losses(outputs, batch)))
        return risk + self.weight * self.difference(features - features.mean(0), groups)

    def difference(self, features: Tensor, groups: Groups) -> Tensor:
        """features: [N, D], whose mean is 0 -> []."""
        raise NotImplementedError
