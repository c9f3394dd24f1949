"""Trials as plain tasks of a Ray cluster that is there already, in place or as folders that are sent and come back."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from engram.backbone.errors import UserError, must
from engram.benchmarks.driving.launch import packing, ray_node
from engram.benchmarks.driving.launch.contract import Ended, Resources
from engram.benchmarks.driving.launch.process import defaults
from engram.benchmarks.driving.launch.ray_connection import as_options, connect, fits, how_lost, no_warnings, wanted
from engram.benchmarks.records.code import fingerprint
from engram.benchmarks.records.layout import BUSY, Busy, lock
from engram.benchmarks.records.stored import held, read_json, write_json
from engram.benchmarks.saying import say
from engram.benchmarks.worker.machine import gather
from engram.benchmarks.worker.stopping import DRIVEN, STOPPED

MEET_SECONDS = 120.0  # how long the nodes that are there may take to say what they are
LOOK_SECONDS = 2.0  # between two looks at which nodes there are and what is free
AGAIN_SECONDS = 10.0
"""After which a trial that was asked to stop is asked again: on a busy node Ray loses interrupts. More than there are
between two in a row, which kill (`engram.benchmarks.driving.launch.ray_node`)."""
PRESSED = ((0.0, False), (1.0, False), (20.0, True))
"""How a worker is killed: after so many seconds interrupted, interrupted again, and at last its task killed by Ray."""
HEADLESS = (
    "the head of the Ray cluster at {host}:{port} does not answer ({error}). If it stays away for a minute Ray ends "
    "this command; trials come to their end or save a checkpoint, and the same command goes on."
)
ASKING = "from engram.benchmarks.records.code import fingerprint; print(fingerprint())"


@dataclass
class Task:
    """A trial's task. ``held``: its lock here, where it runs in a copy; ``asked``: when it was asked to stop, last;
    ``killed``: since when it is to die, and ``pressed``, how often it was told.
    """

    ref: Any
    held: ExitStack = field(default_factory=ExitStack)
    asked: float | None = None
    pressed: int = 0
    killed: float | None = None


class RayLauncher:
    """As many trials at once as the cluster has room for, ``workers`` at most. Raises `UserError` if there is none."""

    def __init__(self, address: str, out: Path, workers: int | None, resources: Resources) -> None:
        self._ray = connect(address)
        cloudpickle = self._ray.cloudpickle
        for module in (ray_node, packing):
            cloudpickle.register_pickle_by_value(module)
        self._most, self._need = workers, wanted(resources)
        self._tasks: dict[Path, Task] = {}
        self._ended: dict[Path, Ended] = {}
        self._nodes: dict[str, bool] = {}  # known by their ids, and whether they may have trials
        self._asked: dict[Any, tuple[str, str]] = {}  # what a node is asked -> its id and address
        self._looked = self._started = 0.0
        self._alone = False
        self.workers = 0
        _drop_probes(out)
        self._probe = out / f"{_ours()}{os.getpid()}-{secrets.token_hex(8)}"
        self._token = secrets.token_hex(16)
        try:
            self._probe.write_text(self._token)
            self.in_place = self._meet_all()
            self._count()
        except BaseException:
            self.close()
            raise

    def free(self) -> int:
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            if not self._answers():
                return 0
            self._ask_new()
            self._hear(0.0)
            self._count()
        return self.workers - len(self._tasks)

    def start(self, folder: Path, resources: Resources) -> None:
        """Hand a trial's task to Ray, for the nodes that have the same code."""
        held, packed = ExitStack(), None
        if not self.in_place:
            try:
                held.enter_context(lock(folder / "lock", patience=0.0, what=f"trial {folder.name}"))
                packed = _packed(folder)
            except (Busy, OverflowError) as error:
                held.close()
                self._ended[folder] = Ended(BUSY if isinstance(error, Busy) else 1, str(error))
                return
        mine = ",".join(node for node, welcome in self._nodes.items() if welcome)
        environment = {**defaults(resources.cores or 1), **_carried(), DRIVEN: "1"}
        with no_warnings():
            task = self._ray.remote(max_retries=0, max_calls=1, **as_options(self._need))(ray_node.run)
            ref = task.options(name=folder.name, label_selector={"ray.io/node-id": f"in({mine})"}).remote(
                str(folder), environment, packed
            )
        self._tasks[folder] = Task(ref, held)
        self._started = time.monotonic()

    def finished(self) -> Mapping[Path, Ended]:
        ended, self._ended = self._ended, {}
        for task in self._tasks.values():
            self._press(task)
        refs = {task.ref: folder for folder, task in self._tasks.items()}
        ready = self._ray.wait(list(refs), num_returns=len(refs), timeout=0)[0] if refs else []
        for ref in ready:
            task = self._tasks.pop(refs[ref])
            with task.held:
                ended[refs[ref]] = self._outcome(refs[ref], task)
        return ended

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def stop(self, folders: frozenset[Path] | None = None) -> None:
        for task in self._meant(folders):
            if task.asked is None:
                self._ask(task)

    def kill(self, folders: frozenset[Path] | None = None) -> None:
        for task in self._meant(folders):
            task.killed = time.monotonic()
            self._press(task)

    def close(self) -> None:
        for task in self._tasks.values():
            task.held.close()
        with contextlib.suppress(OSError):
            self._probe.unlink()
        self._ray.shutdown()

    def _meant(self, folders: frozenset[Path] | None) -> list[Task]:
        return [task for folder, task in self._tasks.items() if folders is None or folder in folders]

    def _ask(self, task: Task) -> None:
        task.asked = time.monotonic()
        self._ray.cancel(task.ref, force=False)

    def _press(self, task: Task) -> None:
        """Go on stopping or killing a task that is still there."""
        if task.killed is None and task.asked is not None and time.monotonic() - task.asked > AGAIN_SECONDS:
            self._ask(task)
        while task.killed is not None and task.pressed < len(PRESSED):
            after, force = PRESSED[task.pressed]
            if time.monotonic() - task.killed < after:
                return
            task.pressed += 1
            self._ray.cancel(task.ref, force=force)

    def _outcome(self, folder: Path, task: Task) -> Ended:
        try:
            code, words, packed = self._ray.get(task.ref)
            if packed is not None:
                sweep = held(folder / "launch.json").get("sweep")
                packing.put_back(packed, folder)
                if sweep is not None:
                    gather(folder, sweep)
        except self._ray.exceptions.TaskCancelledError:
            return Ended(-signal.SIGKILL if task.killed else STOPPED)
        except self._ray.exceptions.RayError as error:
            return Ended(None, f"Ray lost it ({how_lost(error)})")
        except ValueError as error:
            return Ended(1, f"what came back from its node is no trial's folder: {error}")
        except OSError as error:  # others go on; what comes next is refused by the disk, too, and ends the sweep
            return Ended(None, f"what came back from its node could not be written below {folder} ({error.strerror})")
        return Ended(code, words)

    def _answers(self) -> bool:
        """Whether the head is there: whoever asks Ray without one waits until Ray ends the process."""
        host, _, port = self._ray.get_runtime_context().gcs_address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=LOOK_SECONDS).close()
        except OSError as error:
            if not self._alone:
                say(f"engram: {HEADLESS.format(host=host, port=port, error=error.strerror or error)}")
            self._alone = True
            return False
        self._alone = False
        return True

    def _meet_all(self) -> bool:
        """Ask all nodes what they are; whether trials can be run where they lie.

        Raises:
            UserError: one of them has other code, or does not answer.
        """
        self.in_place = False  # that is known when all have answered
        self._ask_new()
        told = self._hear(MEET_SECONDS)
        problems = [_other_code(host, code) for host, _, code in told if code != fingerprint()]
        for node, address in self._asked.values():
            problems.append(f"the node at {address} ({node[:8]}) must answer; it did not in {MEET_SECONDS:g} s.")
        if problems:
            raise UserError("\n".join(dict.fromkeys(problems)))
        return all(shared for _, shared, _ in told)

    def _ask_new(self) -> None:
        """Ask nodes that are not known yet; forget those that are gone."""
        alive = {each["NodeID"]: each["NodeManagerAddress"] for each in self._ray.nodes() if each["Alive"]}
        self._nodes = {node: welcome for node, welcome in self._nodes.items() if node in alive}
        asked = {node for node, _ in self._asked.values()}
        pinned = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        for node, address in alive.items():
            if node in self._nodes or node in asked:
                continue
            with no_warnings():
                look = self._ray.remote(max_retries=0, max_calls=1, num_cpus=0)(ray_node.look)
                ref = look.options(scheduling_strategy=pinned(node, soft=False)).remote(
                    str(self._probe), self._token, ASKING
                )
            self._asked[ref] = node, address

    def _hear(self, patience: float) -> list[tuple[str, bool, str]]:
        """What nodes have answered within so many seconds; those with other code get no trials."""
        refs = list(self._asked)
        ready = self._ray.wait(refs, num_returns=len(refs), timeout=patience)[0] if refs else []
        told = []
        for ref in ready:
            node, _ = self._asked.pop(ref)
            try:
                host, shared, code = self._ray.get(ref)
            except self._ray.exceptions.RayError:
                continue  # it is gone, or will be asked again
            self._nodes[node] = code == fingerprint() and (shared or not self.in_place)
            told.append((host, shared, code))
            if patience == 0.0 and not self._nodes[node]:
                say(f"engram: {_other_code(host, code) if code != fingerprint() else _apart(host)}")
        return told

    def _count(self) -> None:
        """How many trials there is room for: on the nodes by what they have, and by what others leave free now."""
        nodes = {each["NodeID"]: each["Resources"] for each in self._ray.nodes() if each["Alive"]}
        most = sum(fits(has, self._need) for node, has in nodes.items() if self._nodes.get(node))
        if time.monotonic() - self._started > LOOK_SECONDS:  # what just began is not in these numbers yet
            most = min(most, len(self._tasks) + fits(self._ray.available_resources(), self._need))
        self.workers = most if self._most is None else min(most, self._most)


def _ours() -> str:
    """How the files begin that drivers on this machine have nodes look for."""
    return f".node-{socket.gethostname()}-"


def _drop_probes(out: Path) -> None:
    """Remove the files of drivers on this machine that were killed."""
    for path in out.glob(f"{_ours()}*"):
        process = path.name.removeprefix(_ours()).partition("-")[0]
        with contextlib.suppress(OSError, ValueError):
            try:
                os.kill(int(process), 0)
            except ProcessLookupError:
                path.unlink()


def _packed(folder: Path) -> bytes:
    """A trial and those that it is made from, as one tar; they will lie beside each other."""
    launch = read_json(folder / "launch.json")
    inputs = {Path(path).name: Path(path) for path in launch.get("inputs", {}).values()}
    with TemporaryDirectory() as aside:
        write_json(Path(aside, "launch.json"), {**launch, "inputs": {}, "sent": True})
        instead = {f"{folder.name}/launch.json": Path(aside, "launch.json").read_bytes()}
    return packing.pack({**inputs, folder.name: folder}, instead)


def _carried() -> dict[str, str]:
    """What of this process's environment trials find in theirs."""
    return {name: value for name, value in os.environ.items() if name == "ENGRAM_CHECKPOINT_SECONDS"}


def _other_code(host: str, code: str) -> str:
    return str(must(f"the code on {host}", f"the driver's ({fingerprint()})", code, "Install the same there."))


def _apart(host: str) -> str:
    return f"{host} gets no trials: unlike the nodes that were there first, it does not see this folder"
