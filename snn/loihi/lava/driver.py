"""Networks of chip integers, run in Lava by `worker` in an environment of its own, over files."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from engram.backbone.errors import TrialError, UserError, must
from engram.snn.loihi.lava.environment import find
from engram.snn.loihi.network import LIF, ChipNetwork, chip_delay, offsets
from engram.snn.loihi.simulator import Simulator
from engram.snn.loihi.stored import save

KEPT = ("spikes", "u", "v")
STARTING = 60.0
"""Seconds that Lava may take to begin, and for each network."""
PATIENCE = 20.0
"""A machine may be this much busier than the one that the costs of a step were taken on."""
MEMORY = 2**28
"""Bytes of what is kept of a network in one process of Lava."""
How = Literal["runtime", "models", "hardware"]
"""Lava's runtime, with a process of the machine's for each of Lava's; Lava's models alone, stepped in one process, many
times faster on small networks; or the chip that Lava's closed package reaches."""
Kept = Mapping[str, Mapping[str, Tensor]]


class Job(NamedTuple):
    """One network to run.

    Attributes:
        network: what is run.
        images: whole numbers, [B, C, H, W], or [B, T, C, H, W] where the network takes frames.
        keep: of `KEPT`, what is wanted of every population at every step.
    """

    network: ChipNetwork
    images: Tensor
    keep: Collection[str] = KEPT


def run_in_lava(
    network: ChipNetwork, images: Tensor, keep: Collection[str] = KEPT, how: How = "runtime"
) -> dict[str, dict[str, Tensor]]:
    """Run one network's images in Lava's ``fixed_pt`` processes, or on a chip.

    Args:
        network: what is run.
        images: whole numbers, [B, C, H, W], or [B, T, C, H, W] where the network takes frames.
        keep: of `KEPT`, what is wanted.
        how: `How`; ``hardware`` gives spikes alone, and v of the last population.

    Returns: population -> what was kept, int32 [T, B, *shape], in the network's own time: ``spikes``, what was sent;
        ``u`` and ``v``, the state after the step (of sigma-delta neurons sigma and activation).

    Raises:
        UserError: Lava is not there, or has no way to run this network.
        TrialError: it failed, or took too long.
    """
    return run_jobs([Job(network, images, keep)], how)[0]


def run_jobs(jobs: Sequence[Job], how: How = "runtime") -> list[dict[str, dict[str, Tensor]]]:
    """Several networks one after the other in one process, which is a second or two faster for each; as `run_in_lava`.

    Raises:
        UserError, TrialError: as `run_in_lava`.
    """
    python = find()
    if wrong := [line for job in jobs for line in refused(job.network, how)]:
        raise UserError("\n".join(wrong))
    with tempfile.TemporaryDirectory(prefix="engram-lava-") as name:
        folder, planned = Path(name), []
        for place, job in enumerate(jobs):
            paths = {what: str(folder / f"{place}-{what}") for what in ("network.npz", "images.npy", "out.npz")}
            save(job.network, Path(paths["network.npz"]))
            np.save(paths["images.npy"], job.images.cpu().numpy().astype(np.int32))
            planned.append({**{what.split(".")[0]: path for what, path in paths.items()}, "keep": list(job.keep)})
        (folder / "jobs.json").write_text(json.dumps(planned))
        _work(python, folder, sum(map(_seconds, jobs)), how)
        return [_read(Path(plan["out"])) for plan in planned]


@dataclass(frozen=True)
class Agreement:
    """How much of what Lava computes is what our simulator computes.

    Attributes:
        shares: population -> what was kept -> share of values, over images, steps and neurons, that are equal.
        values: that were compared.
        largest: the largest |message| of any population in Lava.
        first: where the earliest population differs first, in words; None where all is equal.
    """

    shares: Mapping[str, Mapping[str, float]]
    values: int
    largest: int
    first: str | None

    @property
    def share(self) -> float:
        """The least of all shares; 1.0 where every value is equal."""
        return min(share for each in self.shares.values() for share in each.values())


def agreement(network: ChipNetwork, images: Tensor, keep: Collection[str] = KEPT, how: How = "runtime") -> Agreement:
    """Run images in Lava and in our simulator and compare every membrane and spike of every layer and step.

    As many images at once as `MEMORY` holds the states of.

    Raises:
        UserError, TrialError: as `run_in_lava`.
    """
    steps = images.shape[1] if network.frames else network.steps
    each = 4 * steps * len(keep) * sum(math.prod(one.shape) for one in network.populations)
    parts = images.split(max(1, MEMORY // max(1, each)))
    found = [agreements([Job(network, part, keep)], how)[0] for part in parts]
    counts = [len(part) for part in parts]
    shares = {
        name: {
            what: sum(n * one.shares[name][what] for n, one in zip(counts, found, strict=True)) / len(images)
            for what in values
        }
        for name, values in found[0].shares.items()
    }
    begin, first = 0, None
    for count, one in zip(counts, found, strict=True):
        if one.first is not None and first is None:
            first = f"{one.first} (of images from {begin + 1} on)" if begin else one.first
        begin += count
    return Agreement(shares, sum(one.values for one in found), max(one.largest for one in found), first)


def agreements(jobs: Sequence[Job], how: How = "runtime") -> list[Agreement]:
    """The same of several networks, in one process of Lava.

    Raises:
        UserError, TrialError: as `run_in_lava`.
    """
    ours = [Simulator(job.network).run(job.images, keep=job.keep).kept for job in jobs]
    return [compared(job.network, a, b) for job, a, b in zip(jobs, ours, run_jobs(jobs, how), strict=True)]


def compared(network: ChipNetwork, ours: Kept, lavas: Kept) -> Agreement:
    """Compare what was kept of the same images, as `Simulator.run` and `run_in_lava` give it."""
    shares: dict[str, dict[str, float]] = {}
    values, largest, first = 0, 0, None
    for name in (each.name for each in network.populations):
        for what, theirs in lavas[name].items():
            mine = ours[name][what].cpu().to(torch.int32)
            same = mine == theirs
            shares.setdefault(name, {})[what] = float(same.double().mean())
            values += same.numel()
            largest = max(largest, int(theirs.abs().max())) if what == "spikes" else largest
        if first is None and min(shares[name].values()) < 1:
            first = _first(name, {what: (ours[name][what].cpu(), theirs) for what, theirs in lavas[name].items()})
    return Agreement(shares, values, largest, first)


def _first(name: str, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> str:
    """The earliest step at which something of a population differs."""
    found = []
    for what, (mine, theirs) in pairs.items():
        places = (mine != theirs).nonzero()
        if len(places):
            place = tuple(int(index) for index in places[0])
            found.append((place[0], place[1:], what, int(mine[place]), int(theirs[place])))
    step, (image, *neuron), what, mine, theirs = min(found)
    where = f"{what} of neuron {tuple(neuron)} at step {step + 1} of image {image + 1}"
    return f"{name}: {where} is {mine}, and {theirs} in Lava"


def refused(network: ChipNetwork, how: How = "runtime") -> Iterator[str]:
    """What Lava, or its closed package, has no way to do, one line each."""
    chip = how == "hardware"
    for each in network.populations:
        for one in each.synapses:
            steps = chip_delay(network, one, each.name)
            if steps < 1:
                rule, got = "at least 1 in Lava, where every synapse takes one", f"{steps}"
                yield str(must(f"{each.name}: steps from {one.source}", rule, got, f"Delay it by {1 - steps} more."))
            if chip and (one.delay or one.delays is not None or steps > 1):
                yield str(must(f"{each.name}: steps from {one.source}", "1 on hardware", "more", "Simulate it."))
            if chip and one.kind == "conv" and one.exponent < 0:
                yield str(must(f"{each.name}: exponent", "at least 0 on hardware", one.exponent, "Simulate it."))
        neurons = each.neurons
        if chip and isinstance(neurons, LIF):
            if neurons.reset == "soft":
                yield str(must(f"{each.name}: reset", "hard on hardware", "soft", "Simulate it."))
            if neurons.refractory or bool(neurons.start.any()):
                got = "refractory steps" if neurons.refractory else "a start"
                yield str(must(f"{each.name}: neurons", "without rest, begun at 0 on hardware", got, "Simulate it."))
    if chip and network.input.encoding == "delta":
        yield str(must("the input", "of values on hardware", "changes", "Simulate it."))


def _read(path: Path) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {}
    with np.load(path, allow_pickle=False) as held:
        for key in held.files:
            name, _, what = key.rpartition(".")
            found.setdefault(name, {})[what] = torch.from_numpy(held[key])
    return found


def _work(python: Path, folder: Path, seconds: float, how: How) -> None:
    """Run the worker on the jobs in a folder.

    Raises:
        TrialError: it failed, or took longer than it may.
    """
    log = folder / "log.txt"
    ones = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")
    environment = {**os.environ, **dict.fromkeys(ones, "1")}
    with log.open("wb") as out:
        command = [str(python), "-E", "-s", str(Path(__file__).with_name("worker.py")), str(folder), how]
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise TrialError(
                f"Lava must end within {seconds:.0f} s; it did not, and was stopped. Its last words: {_last(log)}"
            ) from None
        finally:
            _end(process)
    if code:
        raise TrialError(f"Lava failed with exit code {code}. Its last words: {_last(log)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a worker and all its processes; asked first, as what tidies up its shared memory outlives that."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _last(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-3:]) or "none"


def _seconds(job: Job) -> float:
    """How long a job may take: the operations of Lava's Python, on a busy machine."""
    network = job.network
    steps = (job.images.shape[1] if network.frames else network.steps) * len(job.images) + max(
        offsets(network).values()
    )
    each = sum(_of_step(one.kind, one.weight, one.in_shape) for p in network.populations for one in p.synapses)
    return STARTING * 2 + PATIENCE * steps * (each + 1e-3 * len(network.populations))


def _of_step(kind: str, weight: Tensor, shape: tuple[int, ...]) -> float:
    """Seconds of one step of synapses: a convolution loops over pairs of channels."""
    if kind == "dense":
        return 2e-9 * weight.numel() + 1e-4
    return weight.shape[0] * weight.shape[1] * (3e-5 + 4e-9 * shape[1] * shape[2] * weight[0, 0].numel())
