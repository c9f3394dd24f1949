"""A connection to a Ray cluster that is there already, and what its nodes have room for."""

from __future__ import annotations

import os
import re
import signal
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from engram.backbone.errors import UserError, must
from engram.benchmarks.driving.launch.contract import Resources
from engram.benchmarks.records.quantities import size

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}


def check(address: str, resources: Resources) -> None:
    """Refuse a cluster that cannot be reached, or none of whose nodes has room for a trial.

    Raises:
        UserError: as `connect`, or a trial is too large.
    """
    ray, need = connect(address), wanted(resources)
    try:
        nodes = [each["Resources"] for each in ray.nodes() if each["Alive"]]
    finally:
        ray.shutdown()
    if not any(fits(node, need) for node in nodes):
        has = ", ".join(sorted({" and ".join(_said(name, node) for name in need) for node in nodes}))
        remedy = "See: --devices, --cores, --gpus and --memory."
        raise must("a trial", "small enough for one node", f"nodes with {has}", remedy)


def connect(address: str) -> Any:
    """Ray, connected to the cluster at ``address``.

    Raises:
        UserError: Ray is not installed, or no cluster answers.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.exceptions
        import ray.util.scheduling_strategies
        from ray._private import worker
    except ImportError:
        raise UserError("--ray must have ray; got none. pip install 'engram[ray]'") from None
    remedy = "Start one: ray start --head, and on the other machines: ray start --address HOST:6379"
    host, colon, port = address.rpartition(":")
    if address != "auto" and not (host and "/" not in host and port.isdigit()):
        raise must("--ray", "auto or HOST:PORT of a running cluster", address, remedy)
    worker._worker_logs_enabled = False  # it prints pages about lost nodes on standard output, where --json speaks
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        if colon:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5.0).close()
        with no_warnings():
            ray.init(address=address, configure_logging=False, log_to_driver=False, include_dashboard=None)
    except (OSError, RuntimeError, ValueError) as error:
        raise must("--ray", "the address of a running cluster", f"{address} ({first_line(error)})", remedy) from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return ray


def wanted(resources: Resources) -> dict[str, float]:
    """What a trial takes of a node, in Ray's words."""
    need = {"CPU": resources.cores or 1, "GPU": resources.gpus or 0, "memory": resources.memory or 0}
    return {name: float(amount) for name, amount in need.items() if amount}


def as_options(need: Mapping[str, float]) -> dict[str, float | None]:
    """The same as options of a task."""
    return {"num_cpus": need["CPU"], "num_gpus": need.get("GPU", 0.0), "memory": need.get("memory")}


def fits(has: Mapping[str, float], need: Mapping[str, float]) -> int:
    """How many such trials there is room for at once."""
    return min(int(has.get(name, 0.0) // amount) for name, amount in need.items())


def _said(name: str, node: Mapping[str, float]) -> str:
    amount = node.get(name, 0.0)
    return (
        f"{size(int(amount))} of memory" if name == "memory" else f"{amount:g} {'cores' if name == 'CPU' else 'GPUs'}"
    )


def first_line(error: Exception) -> str:
    """What an error says first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def how_lost(error: Exception) -> str:
    """What an error says of a task that was lost: its first sentence, and the node.

    >>> how_lost(ValueError("The node is dead. Node IP: 10.0.0.7, node ID: 0c4e. To see more, use ray logs."))
    'The node is dead, 10.0.0.7'
    """
    what, _, more = first_line(error).partition(". ")
    place = re.search(r"Node IP: ([^,\s]+)", more)
    return what.rstrip(".") + (f", {place[1]}" if place else "")


@contextmanager
def no_warnings() -> Iterator[None]:
    """Keep Ray's warnings to itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
