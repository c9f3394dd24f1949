"""Attention to every image of the support set: matching networks."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.hardware import exactly
from engram.fewshot.head_options import MatchingOptions


class Matching(nn.Module):
    """The share of attention that the images of a class get, as a logarithm.

        a_i = softmax_i(s cos(f, x_i)),    z_k = log sum_{i of class k} a_i

    so that the softmax of the logits is the sums themselves. Every image counts, not every class: one with more
    images gets more attention. The paper has no scale (s = 1); its full context embeddings are left out.

    Args:
        features: F.
        classes: K.
        options: the scale s.

    Source: Vinyals et al. 2016 (arXiv 1606.04080), section 2.1.
    """

    support: Tensor
    labels: Tensor

    def __init__(self, features: int, classes: int, options: MatchingOptions) -> None:
        super().__init__()
        self.options, self.classes = options, classes
        self.scale = nn.Parameter(torch.tensor(options.scale)) if options.learn_scale else options.scale
        self.register_buffer("support", torch.zeros(0, features))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))

    def forward(self, features: Tensor) -> Tensor:
        """features: [..., F] -> logits [..., K], of a head that was `fitted`."""
        queries = features.reshape(1, -1, features.shape[-1])
        logits = self.from_support(queries, self.support.unsqueeze(0), self.labels.unsqueeze(0), self.classes)
        return logits.reshape(*features.shape[:-1], self.classes)

    def as_linear(self) -> None:
        """None: what each image of the support set gets is no linear function of the features."""
        return

    def from_support(self, queries: Tensor, support: Tensor, labels: Tensor, ways: int) -> Tensor:
        """[E, Q, F], [E, S, F], [E, S] -> logits [E, Q, K]."""
        with exactly(support):
            cosines = F.normalize(queries.float(), dim=-1) @ F.normalize(support.float(), dim=-1).mT
            scores = (self.scale * cosines).log_softmax(-1)
            # each class relative to its own largest: none is so far below another that its sum is zero
            of_class = labels.unsqueeze(1).expand_as(scores)
            most = scores.new_full((*scores.shape[:2], ways), -torch.inf)
            most = most.scatter_reduce(2, of_class, scores.detach(), "amax")
            relative = (scores - most.gather(2, of_class)).exp()
            return most + (relative @ F.one_hot(labels, ways).to(relative.dtype)).log()

    def fitted(self, support: Tensor, labels: Tensor, ways: int) -> Matching:
        """[S, F], [S] -> the head that keeps this support set."""
        made = Matching(support.shape[1], ways, self.options).to(support.device)
        made.support, made.labels = support.detach().float().clone(), labels.clone()
        if isinstance(self.scale, nn.Parameter) and isinstance(made.scale, nn.Parameter):
            made.scale.data.copy_(self.scale.data)
        return made

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any, **more: Any) -> None:
        for name in ("support", "labels"):  # as many images as were saved
            if (saved := state_dict.get(prefix + name)) is not None:
                setattr(self, name, getattr(self, name).new_zeros(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest, **more)
