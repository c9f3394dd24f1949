"""Lava, which runs on Python 3.10 alone: its environment, the script that runs there, and what asks it."""
