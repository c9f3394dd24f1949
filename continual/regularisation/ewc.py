"""Elastic weight consolidation: hold on to weights as firmly as the Fisher information says."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from engram.backbone.contract import Learner, Task
from engram.backbone.seeding import generator
from engram.continual.regularisation.importance import BATCH, importance
from engram.continual.regularisation.options import EWCOptions
from engram.continual.regularisation.penalty import Anchored


class EWC(Anchored):
    """Penalises moving weights by the Fisher information about them in earlier tasks.

        F = mean over images x of E_{y ~ p(y | x)} [ (d log p(y | x) / d theta)^2 ]

    with p over the outputs the head offers to the task. The loss is ``L + lambda / 2 sum_t F_t (theta - theta_t)^2``
    over the tasks t so far. A sum of parabolas is one parabola, of curvature sum F_t around the mean of the theta_t
    weighted by F_t, so that memory does not grow with tasks. Online it is ``L + lambda / 2 gamma F (theta - theta*)^2``
    with theta* the newest weights and ``F <- gamma F + F_new``.

    Source: Kirkpatrick et al. 2017 (arXiv 1612.00796), equation 3; online: Schwarz et al. 2018 (arXiv 1805.06370),
    equations 8 and 9; the labels of the expectation: Kunstner et al. 2019 (arXiv 1905.12558), section 2.
    """

    options: EWCOptions

    def _factor(self) -> float:
        return self.strength * (self.options.gamma if self.options.online else 1)

    @torch.no_grad()
    def after_task(self, learner: Learner, task: Task) -> None:
        new = self.fisher(learner, task)
        if self.options.online:
            kept = [self.options.gamma * old + fresh for old, fresh in zip(self.importances, new, strict=True)]
            self.hold(kept, self.weights)
            return
        sums = [old + fresh for old, fresh in zip(self.importances, new, strict=True)]
        shares = [torch.where(total > 0, fresh / total, 0) for fresh, total in zip(new, sums, strict=True)]
        anchors = [torch.lerp(a, p, s) for a, p, s in zip(self.anchors, self.weights, shares, strict=True)]
        self.hold(sums, anchors)

    @torch.enable_grad()
    def fisher(self, learner: Learner, task: Task) -> list[Tensor]:
        """The diagonal of the Fisher information about every weight."""
        allowed = learner.head.allowed(learner.task)

        def every(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            chances = learner.masked(logits).log_softmax(1).T
            chances = chances if allowed is None else chances[allowed]
            return chances, chances.detach().exp()

        def one(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            chances = learner.masked(logits).log_softmax(1).gather(1, labels[:, None]).T
            return chances, torch.ones_like(chances)

        objective = every if self.options.fisher == "exact" else one
        return importance(learner.model, self._images(learner, task), objective, "square")

    def _images(self, learner: Learner, task: Task) -> Iterator[tuple[Tensor, Tensor]]:
        random = generator(self.setting.seed, "ewc labels", learner.task)
        for images, labels in images_of(learner, task, self.options.samples):
            if self.options.fisher == "sampled":
                with torch.no_grad():
                    logits = learner.model.forward_normalised(images).float()
                    chances = learner.masked(logits).softmax(1).cpu()
                labels = torch.multinomial(chances, 1, generator=random)[:, 0].to(images.device)
            yield images, labels


def images_of(learner: Learner, task: Task, samples: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Images [N, C, H, W] of a task, normalised and not augmented, and labels [N]; as many as wanted, drawn by seed."""
    order = torch.arange(len(task.train))
    if samples is not None and samples < len(order):
        drawn = torch.randperm(len(order), generator=generator(learner.options.seed, "importance"))
        order = drawn[:samples].sort().values
    for images, labels, _ in task.train.batches(order, BATCH, learner.device):
        yield learner.model.normalise(images), labels
