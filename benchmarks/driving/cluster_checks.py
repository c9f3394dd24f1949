"""Looks at whether the cluster that is to run trials is there and takes them, before anything is written."""

from __future__ import annotations

from engram.benchmarks.driving.setting import RunSetting


def check_cluster(how: RunSetting) -> None:
    """Refuse a cluster that is not there, or has no place for such trials.

    Raises:
        UserError: what is wrong with it.
    """
    if how.ray is not None:
        from engram.benchmarks.driving.launch import ray_connection

        ray_connection.check(how.ray, how.resources)
    if how.slurm is not None:
        from engram.benchmarks.driving.launch import slurm

        slurm.check(how.slurm, how.resources)
