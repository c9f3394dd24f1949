"""Heads: features -> logits."""

from __future__ import annotations

from torch import nn


def linear(features: int, classes: int, options: None = None) -> nn.Linear:
    """features: [B, features] -> logits [B, classes]."""
    return nn.Linear(features, classes)
