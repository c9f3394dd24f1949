"""A third party's plugin: random walks that log at every step, with torch as trials of ours have it."""
