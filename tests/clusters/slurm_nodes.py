"""A Slurm cluster on this machine: munged, slurmctld and a slurmd for each node, on loopback ports of their own."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
CONFIGURATION = """
ClusterName=engram
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={home}/munge/socket,cred_expire={waits}
CredType=cred/munge
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool-%n
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd-%n.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmdTimeout={timeout}
MessageTimeout=5
KillWait=5
MinJobAge=300
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs={cpus} RealMemory=4000
PartitionName=here Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class SlurmCluster:
    """``nodes`` nodes, each with ``cpus`` processors; one that is silent for ``timeout`` seconds is taken for lost, and
    its jobs begin again when their credentials have expired, twice as long after.
    """

    def __init__(self, home: Path, *, nodes: int = 2, cpus: int = 2, timeout: int = 10) -> None:
        self.home, self.nodes = home, [f"n{number + 1}" for number in range(nodes)]
        (home / "munge").mkdir(mode=0o755, parents=True)
        (home / "state").mkdir()
        controller, first = _free_ports(nodes + 1)
        host = socket.gethostname().partition(".")[0]
        (home / "slurm.conf").write_text(
            CONFIGURATION.format(
                host=host,
                home=home,
                user=getpass.getuser(),
                controller=controller,
                first=first,
                last=first + nodes - 1,
                nodes=nodes,
                cpus=cpus,
                timeout=timeout,
                waits=2 * timeout,
            )
        )
        self.environment = {"SLURM_CONF": str(home / "slurm.conf")}

    @staticmethod
    def missing() -> str:
        """The first program that is not installed; "" when all are."""
        return next((name for name in PROGRAMS if shutil.which(name) is None), "")

    def start(self) -> None:
        key = self.home / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        places = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self.run("munged", "--force", *(f"--{word}={self.home}/munge/{place}" for word, place in places.items()))
        self.run("slurmctld", "-c")
        for node in self.nodes:
            self.add(node)
        self.wait_for(lambda: self.run("sinfo", "-h", "-o", "%T %D").split() == ["idle", str(len(self.nodes))])

    def add(self, node: str, *, apart: bool = False) -> None:
        """Start a node, or start it again; ``apart``: as another machine, which is called so."""
        if not apart:
            self.run("slurmd", "-N", node)
            return
        boot = self.home / "boot"
        boot.write_text("another machine\n")
        there = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && hostname apart && exec slurmd -N "$1"'
        self.run("unshare", "--mount", "--uts", "--propagation", "private", "sh", "-c", there, str(boot), node)

    def kill(self, node: str, *, jobs: bool) -> None:
        """Kill a node's daemon; ``jobs``: and all that runs there, as if the machine had lost its power."""
        self._signal(f"slurmd-{node}.pid", signal.SIGKILL)
        if jobs:
            running = self.processes(node)
            for process in (*map(_parent, running), *running):  # whoever watches a job dies before it can tell
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    def processes(self, node: str) -> list[int]:
        """What runs jobs on a node, and what runs in them."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if (
                    f"SLURMD_NODENAME={node}".encode() in words
                    and f"SLURM_CONF={self.home}/slurm.conf".encode() in words
                ):
                    found.append(int(path.parent.name))
        return found

    def stop(self) -> None:
        """End everything."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.run("scancel", "--full", "--signal=KILL", f"--user={getpass.getuser()}")
        for name in (*(f"slurmd-{node}.pid" for node in self.nodes), "slurmctld.pid", "munge/pid"):
            self._signal(name, signal.SIGTERM)
        for node in self.nodes:
            for process in self.processes(node):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    def run(self, *words: str) -> str:
        return subprocess.run(
            words, env=os.environ | self.environment, check=True, capture_output=True, text=True, timeout=30
        ).stdout

    def wait_for(self, condition, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (self.home / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.1)

    def _signal(self, name: str, number: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            process = int((self.home / name).read_text())
            os.kill(process, number)
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and Path("/proc", str(process)).exists():
                time.sleep(0.05)


def _parent(process: int) -> int:
    """The slurmstepd that started a process; the process itself where another one did."""
    with contextlib.suppress(OSError):
        parent = Path("/proc", str(process), "stat").read_text().rpartition(")")[2].split()[1]
        if Path("/proc", parent, "comm").read_text().startswith("slurmstepd"):
            return int(parent)
    return process


def _free_ports(number: int) -> tuple[int, int]:
    """A free port, and the first of as many less one that follow each other."""
    for first in range(26000, 60000, 100):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(first, first + number):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first, first + 1
    raise OSError("no free ports")
