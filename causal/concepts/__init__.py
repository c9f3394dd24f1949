"""Classes by way of concepts that somebody can correct."""
