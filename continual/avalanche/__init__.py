"""Avalanche beside ours: its strategies in our experiment, our streams and strategies in its scripts.

It is imported when something of it is used, never before: that takes seconds and changes ``torch``'s datasets.
"""
