"""Heads: features -> logits."""
