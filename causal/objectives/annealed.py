"""Penalties on differences between environments that come into force once something is learned."""

from __future__ import annotations

from torch import Tensor

from engram.backbone.contract import Batch, ObjectiveSetting, Outputs, Training
from engram.backbone.data.columns import ENVIRONMENT
from engram.backbone.errors import must
from engram.causal.objectives.environment_options import IRMOptions, VRExOptions
from engram.causal.objectives.environments import Comparing, Groups, by_image


class Annealed(Comparing):
    """The mean over environments of their mean loss, and a penalty.

        L = mean_e R_e + w P,    w = 1 in the first ``anneal`` steps, then ``penalty``, and L / max(w, 1) goes backward

    The division, which is left out without ``divide``, keeps gradients as large as the optimizer remembers them; what
    others add to the loss (terms of the weights, a teacher's) is divided as well.
    Environments that a batch lacks are left out of means.

    Raises:
        UserError: the penalty would not come into force before the training ends.

    Source: Arjovsky et al. 2019 (arXiv 1907.02893), appendix D and published code.
    """

    def __init__(self, options: IRMOptions | VRExOptions, setting: ObjectiveSetting) -> None:
        super().__init__(ENVIRONMENT, setting)
        self.options, self.anneal = options, options.anneal or 0
        self.training: Training | None = None

    def begin(self, training: Training) -> None:
        super().begin(training)
        first, self.training = self.training is None, training
        if self.options.anneal is None:
            self.anneal = training.total_steps // 10
        elif first and self.anneal >= training.total_steps:
            rule, remedy = f"less than the steps of the training, {training.total_steps}", "Lower it, or leave it out."
            raise must("--objective.anneal", rule, self.anneal, remedy)

    def weight(self, step: int) -> float:
        """What the penalty counts for in a step."""
        return self.options.penalty if step >= self.anneal else 1.0

    def divisor(self, step: int) -> float:
        return max(self.weight(step), 1.0) if self.options.divide else 1.0

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        if self.training is not None and self.options.restart and step == self.anneal > 0:
            self.training.optimizers.restart()
        groups, losses = self.groups(batch), by_image(self.losses(outputs, batch), batch)
        risks = groups.means(losses)
        return groups.average(risks) + self.weight(step) * self.penalty(groups, risks, losses, outputs, batch)

    def penalty(self, groups: Groups, risks: Tensor, losses: Tensor, outputs: Outputs, batch: Batch) -> Tensor:
        """P, []; risks: [G] of the environments, losses: [N] of the images."""
        raise NotImplementedError
