"""Structural causal models that are known whole, pictures drawn from them, and what networks make of them."""
