"""The head ``causal.concept-bottleneck``: features, concepts, classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engram.backbone.errors import must
from engram.causal.concepts.options import BottleneckOptions


class ConceptBottleneck(nn.Module):
    """Logits of classes out of concepts, and these out of features by a linear layer: ``f(sigmoid(g(h)))``.

    f is linear, or has one layer of ReLU units. What the features know beside the concepts cannot reach the classes but
    through the concepts' numbers: a probability can say more than whether the concept is there (leakage).

    Args:
        features: F.
        classes: K.
        options: how many concepts, and what of them f is given.

    Attributes:
        width: how many concepts, C.

    Source: Koh et al. 2020 (arXiv 2007.04612), section 3.
    """

    def __init__(self, features: int, classes: int, options: BottleneckOptions) -> None:
        super().__init__()
        self.options, self.width = options, options.width
        self.to_concepts = nn.Linear(features, options.width)
        inner = options.units or options.width
        between = [nn.Linear(options.width, inner), nn.ReLU()] if options.units else []
        self.to_classes = nn.Sequential(*between, nn.Linear(inner, classes))

    def concepts(self, features: Tensor) -> Tensor:
        """features: [..., F] -> logits of the concepts [..., C]."""
        return self.to_concepts(features)

    def of_concepts(self, logits: Tensor) -> Tensor:
        """Logits of concepts [..., C] -> logits of classes [..., K]."""
        return self.to_classes(logits.sigmoid() if self.options.given == "probabilities" else logits)

    def of_truth(self, present: Tensor) -> Tensor:
        """Which concepts are there, [..., C] bool -> logits of classes [..., K]: their probabilities are 0 and 1.

        Raises:
            UserError: f is given logits, which are without bounds then.
        """
        if self.options.given != "probabilities":
            remedy = "Use --head.given probabilities."
            raise must("what classes are made of, for true concepts", "probabilities", "logits", remedy)
        return self.to_classes(present.to(self.to_concepts.weight.dtype))

    def forward(self, features: Tensor) -> Tensor:
        """features: [..., F] -> logits [..., K]."""
        return self.of_concepts(self.concepts(features))

    def as_linear(self) -> None:
        """None: probabilities are not linear in the features."""
        return


def concept_bottleneck(features: int, classes: int, options: BottleneckOptions) -> ConceptBottleneck:
    """features: [..., features] -> logits [..., classes], through ``options.width`` concepts."""
    return ConceptBottleneck(features, classes, options)


def uncertainty(logits: Tensor) -> Tensor:
    """How little is known of each concept, as the entropy of its probability in nat, of the shape of the logits.

    >>> [round(each, 4) for each in uncertainty(torch.tensor([0.0, 30.0])).tolist()]
    [0.6931, 0.0]
    """
    probability = logits.double().sigmoid()
    return (torch.special.entr(probability) + torch.special.entr(1 - probability)).to(logits.dtype)
