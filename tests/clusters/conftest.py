"""Clusters on this machine are scripts of their own, which are no tests."""

collect_ignore = ["slurm_nodes.py", "ray_nodes.py"]
