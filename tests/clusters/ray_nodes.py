"""A Ray cluster on this machine: a head without room for trials, and nodes that come and go."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class RayCluster:
    """Each node is what ``ray start`` starts, with ``environment`` beside this process's."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home, self.address = home, ""
        here = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(home), "RAY_DISABLE_DOCKER_CPU_WARNING": "1"}
        self.environment = {**environment, **here}
        self._nodes: list[object] = []

    def start(self) -> None:
        from ray.cluster_utils import Cluster

        with _environment(self.environment):
            self._cluster = Cluster(initialize_head=True, head_node_args=self._like(num_cpus=0))
        self.address = self._cluster.address

    def add(self, cpus: int = 2, **environment: str) -> object:
        """Start a node with so many processors, and an environment in which something is different."""
        with _environment({**self.environment, **environment}):
            node = self._cluster.add_node(**self._like(num_cpus=cpus))
        self._nodes.append(node)
        return node

    def kill(self, node: object) -> None:
        """End a node as if its machine had lost its power, but for the trials: these run on a while, unwatched."""
        self._nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def stop(self) -> None:
        self._cluster.shutdown()

    def processes(self) -> list[int]:
        """What runs of this cluster, its tasks included."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if f"RAY_TMPDIR={self.home}".encode() in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found

    def _like(self, num_cpus: int) -> dict[str, object]:
        return {
            "num_cpus": num_cpus,
            "num_gpus": 0,
            "object_store_memory": 80 * 2**20,
            "include_dashboard": False,
        }


@contextlib.contextmanager
def _environment(wanted: dict[str, str]):
    before = dict(os.environ)
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
