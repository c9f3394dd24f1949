"""Testing a network on one task of a stream."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engram.backbone.data.sets import Split
from engram.backbone.measures.scoring import SCORING_BATCH
from engram.backbone.nets.layout import arranged
from engram.continual.experiment.learner import Learner
from engram.continual.tasks.heads import MASKED


@dataclass(frozen=True)
class Scores:
    """Fractions right: ``accuracy`` as the head answers, ``task_aware`` among the outputs of the image's task alone."""

    accuracy: float
    task_aware: float


@torch.inference_mode()
def test(learner: Learner, split: Split, task: int) -> Scores:
    """Score the learner's network on images of one task, in evaluation mode; computed in fp32."""
    head, model = learner.head, learner.trainer.scored_model.eval()
    if head.kind == "multi":
        learner.enter(task)
    answers, own = head.allowed(task if head.kind == "multi" else learner.task), head.table[task]
    right = torch.zeros(2, dtype=torch.long, device=learner.device)
    size = max(SCORING_BATCH // (split.frames or 1), 1)
    for images, labels, _ in split.batches(torch.arange(len(split)), size, learner.device):
        x = arranged(model.normalise(images), model.backbone)
        found = (strategy.scores(learner, x) for strategy in learner.strategies)
        scores = next((each for each in found if each is not None), None)
        scores = model.forward_normalised(x).float() if scores is None else scores
        answer = scores if answers is None else scores.masked_fill(~answers, MASKED)
        right[0] += _right(answer, labels)
        right[1] += _right(scores.masked_fill(~own, MASKED), labels)
    if head.kind == "multi":
        learner.enter(learner.task)
    accuracy, task_aware = (right.double() / len(split)).tolist()
    return Scores(accuracy, task_aware)


def _right(scores: Tensor, labels: Tensor) -> Tensor:
    """How many rows of [N, K] are right; where everything is masked, as for a task without any class mean, none is."""
    best, answer = scores.max(1)
    return ((answer == labels) & (best > MASKED)).sum()
