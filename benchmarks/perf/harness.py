"""What the scripts share: interleaved timing, medians, rows, the machine's description."""

from __future__ import annotations

import multiprocessing
import platform
import re
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison. ``ratio`` above 1 means that we are better, whichever way the unit points; ``n`` is rounds."""

    name: str
    ours: float
    peer: float
    peer_name: str
    unit: str
    higher_is_better: bool
    n: int

    @property
    def ratio(self) -> float:
        return self.ours / self.peer if self.higher_is_better else self.peer / self.ours

    def as_json(self) -> dict[str, Any]:
        values = asdict(self)
        return {**{k: values[k] for k in ("name", "ours", "peer", "peer_name")}, "ratio": self.ratio} | {
            k: values[k] for k in ("unit", "higher_is_better", "n")
        }


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def interleaved(
    ours: Callable[[], object], peer: Callable[[], object], rounds: int, warm_up: int = 1
) -> tuple[float, float]:
    """Median seconds of each, taken in turns (A B, B A, A B, ...), so that a drifting machine hurts both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    for index in range(warm_up + rounds):
        order = (0, 1) if index % 2 == 0 else (1, 0)
        for which in order:
            took = seconds((ours, peer)[which])
            if index >= warm_up:
                times[which].append(took)
    return statistics.median(times[0]), statistics.median(times[1])


def least(works: Sequence[Callable[[], object]], rounds: int, warm_up: int = 1) -> list[float]:
    """The fewest seconds of processor time that each took, in turns, of the thread that calls.

    For work of one thread. Other processes of a busy machine make it slower, and never faster.
    """
    found = [float("inf")] * len(works)
    for index in range(warm_up + rounds):
        order = range(len(works)) if index % 2 == 0 else reversed(range(len(works)))
        for which in order:
            began = time.thread_time()
            works[which]()
            took = time.thread_time() - began
            if index >= warm_up:
                found[which] = min(found[which], took)
    return found


def resident(field: str) -> float:
    """Megabytes of this process: VmRSS now, VmHWM at its peak. Linux alone tells (`STATUS`)."""
    found = re.search(rf"^{field}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return int(found.group(1)) / 1024


def apart(work: Callable[..., list[float]], *args: object) -> list[float]:
    """Run in a fresh process, whose peak is that of this work alone."""
    import torch

    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _threads, (torch.get_num_threads(),)) as pool:
        return pool.submit(work, *args).result()


def _threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def machine() -> dict[str, str]:
    """The hardware and versions a ratio belongs to."""
    import torch

    from engram.backbone.hardware import has_bf16

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    bf16 = "bf16" if has_bf16("cpu") else "no bf16"
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    return {
        "processor": f"{model}, {torch.get_num_threads()} threads, {bf16}",
        "gpu": gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
