"""A script for another environment, which is no test."""

collect_ignore = ["in_lava_dl.py"]
