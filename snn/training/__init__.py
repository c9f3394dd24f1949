"""Spiking networks that are trained with surrogate gradients, and the adapters that make them."""
