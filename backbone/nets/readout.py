"""The read-out over steps: what features a network gives if it stops after some of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from engram.backbone.contract.networks import Delayed, Weighted
from engram.backbone.errors import must


def read_out(
    features: Tensor,
    steps: Sequence[int],
    readout: Literal["mean", "last"],
    delay: int = 0,
    weights: Tensor | None = None,
) -> Tensor:
    """The features a network would give if it stopped after each of ``steps``.

    Args:
        features: [S, B, feature_dim] after each step, from ``forward_steps``.
        steps: ascending step numbers in 1..S.
        readout: the network's own: the mean of the first t steps, or step t alone.
        delay: how many steps the mean leaves out at the beginning; until they are over it is step t alone.
        weights: [S] of the steps in the mean, positive; None: all are equal.

    Returns: [len(steps), B, feature_dim].

    Raises:
        UserError: a step the network does not have.

    >>> read_out(torch.tensor([[[1.0]], [[3.0]]]), [1, 2], "mean").flatten().tolist()
    [1.0, 2.0]
    >>> read_out(torch.tensor([[[1.0]], [[3.0]], [[7.0]]]), [1, 2, 3], "mean", delay=1).flatten().tolist()
    [1.0, 3.0, 5.0]
    >>> read_out(torch.tensor([[[1.0]], [[3.0]]]), [1, 2], "mean", weights=torch.tensor([1.0, 3.0])).flatten().tolist()
    [1.0, 2.5]
    """
    if not steps or not 1 <= min(steps) <= max(steps) <= len(features):
        raise must(
            "steps", f"between 1 and the network's {len(features)}", list(steps), "Simulate longer or ask for fewer."
        )
    places = torch.tensor(list(steps), device=features.device)
    if readout == "last":
        return features[places - 1]
    left_out = (places - 1).clamp(max=delay)
    if weights is None:
        return _sums(features, places, left_out) / (places - left_out).view(-1, 1, 1)
    factors = weights[: len(features)].to(features.dtype).view(-1, 1, 1)
    return _sums(features * factors, places, left_out) / _sums(factors, places, left_out)


def _sums(values: Tensor, places: Tensor, left_out: Tensor) -> Tensor:
    sums = torch.cat([torch.zeros_like(values[:1]), values.cumsum(0)])
    return sums[places] - sums[left_out]


def read_at(net: Any, features: Tensor, steps: Sequence[int]) -> Tensor:
    """As `read_out`, by the network's own rule. features: [S, B, feature_dim] -> [len(steps), B, feature_dim]."""
    readout = net.readout
    weights = net.step_weights(len(features)) if isinstance(net, Weighted) else None
    delay = net.delay if isinstance(net, Delayed) else 0
    return read_out(features, steps, readout, delay, weights)


def read(net: Any, features: Tensor) -> Tensor:
    """The read-out of all steps. features: [S, B, feature_dim] -> [B, feature_dim].

    >>> from types import SimpleNamespace
    >>> read(SimpleNamespace(readout="mean"), torch.tensor([[[1.0]], [[3.0]]])).tolist()
    [[2.0]]
    """
    if net.readout == "last":
        return features[-1]
    if isinstance(net, Weighted):
        return read_at(net, features, [len(features)])[0]
    left_out = min(net.delay, len(features) - 1) if isinstance(net, Delayed) else 0
    return features[left_out:].mean(0)
