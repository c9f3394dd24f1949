"""Memory aware synapses: hold on to weights that the outputs are sensitive to."""

from __future__ import annotations

import torch
from torch import Tensor

from engram.backbone.contract import Learner, Task
from engram.continual.regularisation.ewc import images_of
from engram.continual.regularisation.importance import importance
from engram.continual.regularisation.options import MASOptions
from engram.continual.regularisation.penalty import Anchored


class MAS(Anchored):
    """Penalises moving weights by how much they change the outputs, whatever the labels.

        Omega <- Omega + mean over images x of | d ||f(x)||^2 / d theta |

    after each task, f being the logits the head offers to it; the loss is ``L + lambda sum Omega (theta - theta*)^2``
    around the newest weights.

    Source: Aljundi et al. 2018 (arXiv 1711.09601), equations 2 to 4 and section 4.1.
    """

    options: MASOptions

    def _factor(self) -> float:
        return 2 * self.strength

    @torch.no_grad()
    def after_task(self, learner: Learner, task: Task) -> None:
        new = self.sensitivity(learner, task)
        self.hold([old + fresh for old, fresh in zip(self.importances, new, strict=True)], self.weights)

    @torch.enable_grad()
    def sensitivity(self, learner: Learner, task: Task) -> list[Tensor]:
        """Mean absolute gradient of the squared length of the outputs, for every weight, shaped like the weights."""
        allowed = learner.head.allowed(learner.task)

        def length(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            squared = (logits if allowed is None else logits[:, allowed]).square().sum(1)[None]
            return squared, torch.ones_like(squared)

        images = images_of(learner, task, self.options.samples)
        return importance(learner.model, images, length, "absolute")
