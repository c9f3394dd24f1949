"""Traced networks as graphs: what every operation is, and how a graph is rewritten and run over time."""
