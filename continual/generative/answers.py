"""What the network of the earlier tasks says to generated rows, and how far the present one is from it."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.contract import TaskHead
from engram.continual.distilling import Scale, factor
from engram.continual.tasks.heads import MASKED

TEMPERATURE = 2.0
"""Of soft targets."""

Targets = Literal["hard", "soft"]


def masks(head: TaskHead, task: int, rows: Tensor | None = None) -> tuple[Tensor | None, Tensor | None]:
    """Outputs that generated rows choose among, in the earlier network and in the one that learns ``task``; None: all.

    Each is [1, width]; where tasks have outputs of their own [tasks before, width], one question for each of them, or
    with the tasks of the rows, [R], one question per row, [R, 1, width].
    """
    if head.by_task:
        own = head.table[:task] if rows is None else head.table[rows, None]
        return own, own
    then, now = head.allowed(task - 1), head.allowed(task)
    return None if then is None else then[None], None if now is None else now[None]


def answers(logits: Tensor, allowed: Tensor | None, kind: Targets) -> Tensor:
    """logits: [R, K] of the earlier network -> its answers to each question, [R, questions, K] that sum to 1."""
    asked = _asked(logits, allowed)
    if kind == "soft":
        return (asked / TEMPERATURE).softmax(-1)
    return F.one_hot(asked.argmax(-1), logits.shape[1]).to(logits.dtype)


def mismatch(logits: Tensor, targets: Tensor, allowed: Tensor | None, kind: Targets, scale: Scale = "none") -> Tensor:
    """Cross-entropy of every row, [R], with the answers of the earlier network: the mean over the questions.

    Soft targets are multiplied as ``scale`` says, see `engram.continual.distilling`.

    Source: van de Ven and Tolias 2018 (arXiv 1809.10635), replay with hard and with soft targets.
    """
    asked = _asked(logits, allowed)
    if kind == "hard":
        return -(targets * asked.log_softmax(-1)).sum(-1).mean(-1)
    outputs = logits.shape[1] if allowed is None else allowed.sum(-1)
    entropies = -(targets * (asked / TEMPERATURE).log_softmax(-1)).sum(-1)
    return (entropies * factor(scale, TEMPERATURE, outputs)).mean(-1)


def _asked(logits: Tensor, allowed: Tensor | None) -> Tensor:
    asked = logits[:, None]
    return asked if allowed is None else torch.where(allowed, asked, MASKED)
