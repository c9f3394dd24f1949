"""How far the normalised weighted geometric mean is from the mean."""

from __future__ import annotations

from torch import Tensor


def nwgm_gap(logits: Tensor, prior: Tensor) -> Tensor:
    """max_y |sum_z P(z) softmax(f_z)_y - softmax(sum_z P(z) f_z)_y|.

    logits: f [..., V, K]; prior: P [V] -> [...].

    >>> import torch
    >>> logits = torch.tensor([[4.0, 0.0], [-1.0, 0.0]])
    >>> [round(nwgm_gap(scale * logits, torch.tensor([0.5, 0.5])).item(), 3) for scale in (0.01, 0.1, 1.0)]
    [0.0, 0.001, 0.192]
    """
    exact = prior @ logits.softmax(-1)
    geometric = (prior @ logits).softmax(-1)
    return (exact - geometric).abs().amax(-1)
