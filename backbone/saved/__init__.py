"""Trained networks and resume states on disk."""
