"""A Ray cluster on this machine: a head without room for trials, and nodes that come and go."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

APART = 'mount -t tmpfs none "$0" && mount --bind "$1" /proc/sys/kernel/random/boot_id && hostname apart && shift'


class RayCluster:
    """Each node is what ``ray start`` starts, with ``environment`` beside this process's."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home, self.address = home, ""
        here = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(home), "RAY_DISABLE_DOCKER_CPU_WARNING": "1"}
        self.environment = {**environment, **here}
        self._nodes: list[object] = []
        self._apart: list[subprocess.Popen[bytes]] = []

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

    def add_apart(self, hidden: Path, cpus: int) -> None:
        """Start a node that sees an empty folder where ``hidden`` is, as on another machine, called ``apart``."""
        more = {"num-cpus": cpus, "num-gpus": 0, "object-store-memory": 80 * 2**20, "address": self.address}
        ray = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            *(f"--{name}={value}" for name, value in more.items()),
        ]
        boot = self.home / "boot"
        boot.write_text("another machine\n")
        words = ["sh", "-c", f'{APART} && exec "$@"', str(hidden), str(boot), *ray, "--block"]
        before = self._alive()
        self._apart.append(
            subprocess.Popen(
                ["unshare", "--mount", "--uts", "--propagation", "private", *words],
                env={**os.environ, **self.environment},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        deadline = time.monotonic() + 60
        while self._alive() <= before:  # one that was killed a moment ago may go meanwhile
            assert time.monotonic() < deadline, "no node came"
            time.sleep(0.2)

    def lose_head(self) -> None:
        """Kill what all nodes report to; the cluster is of no use any more."""
        for process in self.processes():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{process}/comm").read_text().startswith("gcs_server"):
                    os.kill(process, signal.SIGKILL)

    def only(self, cpus: int) -> None:
        """Leave one node with so many processors beside the head; with 0, none."""
        for node in list(self._nodes):
            self.kill(node)
        for process in self._apart:
            process.terminate()
            process.wait()
        self._apart.clear()
        if cpus:
            self.add(cpus)

    def stop(self) -> None:
        """End everything."""
        self.only(0)
        self._cluster.shutdown()
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def _alive(self) -> set[str]:
        return {node["NodeID"] for node in self._cluster.global_state.node_table() if node["Alive"]}

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
