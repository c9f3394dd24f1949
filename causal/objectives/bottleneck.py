"""The objective ``concepts``: a concept bottleneck trained jointly, in sequence, or each part by itself."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from engram.backbone.contract import Batch, Conceptual, Objective, ObjectiveSetting, Outputs, Training, Wanted
from engram.backbone.data.columns import CONCEPTS
from engram.backbone.errors import must
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.heads import conceptual
from engram.backbone.objectives.cross_entropy import cross_entropies
from engram.causal.concepts.options import ConceptsOptions


class Concepts(Objective):
    """Mean over rows of ``CE(f(c), y) + lambda sum_k BCE(g_k, c_k)``, with c as the mode says.

    joint: c are the concepts that the network makes, and both terms train all of it. sequential: the same, but the
    first term trains f alone. independent: c are the true concepts. The last two train f and g at once: neither
    changes what the other is trained by, but that f sees concepts before they are done.

    Args:
        options: the mode and lambda.
        width: how many concepts the data have.
        label_smoothing: share of the target that is spread over all classes; concepts have none.

    Source: Koh et al. 2020 (arXiv 2007.04612), section 3.
    """

    columns = (CONCEPTS,)
    wants: tuple[Wanted, ...] = ("concepts",)
    by_rows = True

    def __init__(self, options: ConceptsOptions, width: int, label_smoothing: float = 0.0) -> None:
        self.options, self.width, self.label_smoothing = options, width, label_smoothing
        self.model: Classifier | None = None

    def __call__(self, outputs: Outputs, batch: Batch, step: int) -> Tensor:
        assert outputs.concepts is not None  # wanted
        present = batch.columns[CONCEPTS]
        each = F.binary_cross_entropy_with_logits(outputs.concepts, present.float(), reduction="none").sum(1)
        logits = self._logits(outputs, outputs.concepts, present)
        losses = cross_entropies(logits, batch.labels, self.label_smoothing, outputs.offered)
        batch.losses = losses + self.options.weight * each
        return batch.losses.mean()

    def _logits(self, outputs: Outputs, concepts: Tensor, present: Tensor) -> Tensor:
        """Of the classes, made of what the mode says. concepts: [N, C] logits; present: [N, C] bool."""
        if self.options.mode == "joint":
            return outputs.logits
        assert self.model is not None  # a training has begun
        head = conceptual(self.model.head)
        mode = self.options.mode
        found = head.of_concepts(concepts.detach()) if mode == "sequential" else head.of_truth(present.bool())
        return outputs.on_offer(found.float())

    def begin(self, training: Training) -> None:
        """Look at the head.

        Raises:
            UserError: it has no concepts, or not as many as the data.
        """
        model = training.model
        if not isinstance(model.head, Conceptual):
            got, remedy = type(model.head).__name__, "Use --head causal.concept-bottleneck."
            raise must("the head for the objective concepts", "Conceptual", got, remedy)
        if model.head.width != self.width:
            rule = f"as many as the column {CONCEPTS!r} has, {self.width}"
            raise must("the concepts of the head", rule, model.head.width, f"Use --head.width {self.width}.")
        if self.options.mode == "independent":
            model.head.of_truth(next(model.parameters()).new_zeros(1, self.width).bool())
        self.model = model


def concepts(options: ConceptsOptions, setting: ObjectiveSetting) -> Concepts:
    """The objective, for the concepts that the training images have.

    Raises:
        UserError: their column is no table of which concepts are there.
    """
    column = setting.data.columns.get(CONCEPTS)
    width = 0
    if column is not None:
        if isinstance(column, tuple) or column.ndim != 2 or column.is_floating_point():
            rule, got = "[N, C] of which concepts are there", "names or numbers of another shape"
            raise must(f"the column {CONCEPTS!r}", rule, got, "Take data with such a column, such as concept-shapes.")
        width = column.shape[1]
    return Concepts(options, width, setting.label_smoothing)
