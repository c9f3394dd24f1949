"""Groups that count alike, however many images they have."""

from __future__ import annotations

from torch import Tensor

from engram.backbone.contract import Batch, ObjectiveSetting, Outputs
from engram.causal.objectives.environment_options import ReweightOptions
from engram.causal.objectives.environments import Comparing


class Reweight(Comparing):
    """The mean over groups of their mean loss: images of a group of n count N / (G n), of N in G groups.

    Beside ``--balance`` on the same column small groups would be lifted twice.

    Source: Shimodaira 2000 (doi 10.1016/S0378-3758(00)00115-4), with the groups' shares as the density.
    """

    by_rows = True

    def __init__(self, options: ReweightOptions, setting: ObjectiveSetting) -> None:
        super().__init__(options.column, setting)

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        weights = self.sizes.mean() / self.sizes
        batch.losses = self.losses(outputs, batch) * weights[batch.columns[self.column]]
        return batch.losses.mean()
