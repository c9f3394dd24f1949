"""The killer: at random moments of a seeded schedule it ends something as kill -9 would."""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor

from processes import kill, ours
from ray_nodes import RayCluster
from servers import Server
from sweeping import Sweep, launches

WEIGHTS = {"worker": 12, "driver": 2, "warm": 2, "postgres": 2, "mlflow": 2, "ray": 2}
"""How often each is killed, as shares. A sweep whose driver dies every few seconds would last the whole storm."""
NODES = 2
"""Of the Ray cluster, with two processors each, beside its head."""
LULL = (0.2, 2.0)
"""Seconds between two kills."""


class Storm:
    """Counts its kills by kind; ``servers`` are started again, each beside what goes on.

    ``cluster``: where half of the drivers have their trials run, and whose nodes are replaced; None without Ray.
    """

    def __init__(self, token: str, servers: dict[str, Server], cluster: RayCluster | None, seed: int) -> None:
        self.token, self.servers, self.rng = token, servers, random.Random(seed)
        self.cluster = cluster
        self.nodes = [cluster.add() for _ in range(NODES)] if cluster is not None else []
        self.killed: Counter[str] = Counter()
        self.rising: dict[str, Future[None]] = {}
        # their processes are killed when the thread ends that started them
        self.threads = ThreadPoolExecutor(len(servers))

    def rage(self, sweep: Sweep, kills: int) -> None:
        """Kill while the sweep runs, ``kills`` times in all or until it is done; its driver is started again."""
        while self.killed.total() < kills:
            if sweep.driver is None or sweep.ended() is not None:
                if sweep.ended() == 0:
                    return
                sweep.start(*launches(self.rng, self.cluster.address if self.cluster is not None else ""))
            time.sleep(self.rng.uniform(*LULL))
            kind = self.rng.choices([*WEIGHTS], [*WEIGHTS.values()])[0]
            if self._strike(kind, sweep):
                self.killed[kind] += 1

    def _strike(self, kind: str, sweep: Sweep) -> bool:
        """Kill one of a kind; whether there was one."""
        if kind in self.servers:
            return self._fell(kind)
        if kind == "ray":
            return self._replace(sweep)
        found = sorted(each.number for each in ours(self.token) if each.kind == kind)
        if not found or not kill(self.rng.choice(found)):
            return False
        if kind == "driver" and sweep.driver is not None:
            sweep.driver.wait()
        return True

    def _fell(self, kind: str) -> bool:
        if kind in self.rising and not self.rising[kind].done():
            return False
        server, pause = self.servers[kind], self.rng.uniform(0.0, 3.0)
        server.kill()

        def rise() -> None:
            time.sleep(pause)
            server.start()

        self.rising[kind] = self.threads.submit(rise)
        return True

    def _replace(self, sweep: Sweep) -> bool:
        """Kill a node of the cluster, if trials run there, and start another one in its place."""
        if self.cluster is None or not sweep.on_ray:
            return False
        self.cluster.kill(self.nodes.pop(self.rng.randrange(len(self.nodes))))
        self.nodes.append(self.cluster.add())
        return True

    def calm(self) -> None:
        """Wait until all servers are back."""
        for rising in self.rising.values():
            rising.result()
