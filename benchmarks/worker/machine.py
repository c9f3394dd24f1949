"""How busy the machines of a sweep are, each sampled once for all its trials, under the names that MLflow has for it.

The driver samples its own, and of every other one a worker that runs there. Samples go to ledgers in the sweep's folder
first, as measurements of trials do, so that no store's absence loses any; where a node does not see that folder they
come back with the trial's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from engram.benchmarks.records.layout import MACHINES
from engram.benchmarks.records.lease import machine
from engram.benchmarks.records.lines import LEDGER, Line, encoded, last_line, parse_lines, unsealed
from engram.benchmarks.records.stored import held

SECONDS = 10.0
"""Between two samples."""
FIRST_SECONDS = 1.0
"""Before a worker's first sample, where the last of its machine is old: trials may be shorter than the time between."""
_MEGABYTE = 1e6
_TAIL = 2**16  # bytes at the end of a ledger, of many samples
_GPU = "utilization.gpu,memory.used,memory.total,power.draw"
_GPU_NAMES = ("utilization_percentage", "memory_usage_megabytes", "memory_total_megabytes", "power_usage_watts")


class Watch:
    """A thread that samples this machine for a sweep, unless another process of it does.

    ``folder`` is where samples go, ``sweep`` the sweep's; ``host`` stands in their names, "" for the driver's machine.
    """

    def __init__(self, folder: Path, sweep: str, host: str = "") -> None:
        self.folder, self.sweep, self.host = folder, sweep, host
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        # a full or read-only disk: trials say it themselves
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as alone:
            while not _taken(alone, self.sweep):
                if self._stop.wait(SECONDS):
                    return
            busy, pause = _processor(), self._first_pause()
            while not self._stop.wait(pause):
                now, pause = _processor(), SECONDS
                self._write(self._sample(busy, now))
                busy = now

    def _first_pause(self) -> float:
        if not self.host:
            return SECONDS
        last = last_line(self.folder / LEDGER)
        since = time.time() - (last.t / 1000 if last else 0.0)
        return min(max(SECONDS - since, FIRST_SECONDS), SECONDS)

    def _write(self, sample: Mapping[str, float]) -> None:
        head = f"system/{self.host}" if self.host else "system"
        values = {f"{head}/{name}": value for name, value in sample.items()}
        _append(self.folder / LEDGER, {time.time_ns() // 1_000_000: values})

    def _sample(self, before: tuple[int, int], now: tuple[int, int]) -> dict[str, float]:
        self.folder.mkdir(parents=True, exist_ok=True)
        disk = shutil.disk_usage(self.folder)
        values = {
            "disk_usage_percentage": 100 * disk.used / disk.total,
            "disk_available_megabytes": disk.free / _MEGABYTE,
        }
        if now[1] > before[1]:
            values["cpu_utilization_percentage"] = 100 * (now[0] - before[0]) / (now[1] - before[1])
        return values | _memory() | _graphics()


@contextmanager
def watched(trial: Path) -> Iterator[None]:
    """Have the machine sampled that the worker of a trial runs on, where its driver wants that."""
    launch = held(trial / "launch.json")
    sweep = launch.get("sweep")
    if sweep is None:
        yield
        return
    host = re.sub(r"[^\w-]+", "-", socket.gethostname())
    watch = Watch((trial if launch.get("sent") else Path(sweep)) / MACHINES / host, sweep, host)
    watch.start()
    try:
        yield
    finally:
        watch.stop()


def gather(trial: Path, sweep: str) -> None:
    """Move the samples that came back in a trial's folder to those of the sweep, as far as there is room for them."""
    for ledger in sorted(trial.glob(f"{MACHINES}/*/{LEDGER}")):
        samples: dict[int, dict[str, float]] = {}
        with contextlib.suppress(OSError):
            for line in parse_lines(ledger.read_bytes()):
                samples.setdefault(line.t, {})[line.name] = line.value
            home = Path(sweep, MACHINES, ledger.parent.name)
            home.mkdir(parents=True, exist_ok=True)
            _append(home / LEDGER, samples)
    shutil.rmtree(trial / MACHINES, ignore_errors=True)


def _append(path: Path, samples: Mapping[int, Mapping[str, float]]) -> None:
    """Add samples (unix milliseconds -> values) behind those of a ledger, of which its end alone is read.

    One that is there already stays as it is.
    """
    with path.open("a+b") as ledger:
        ledger.seek(max(0, ledger.tell() - _TAIL))
        tail = ledger.read()
        there, step, number = set[object](), -1, -1
        for text in tail.split(b"\n"):
            with contextlib.suppress(ValueError):  # cut off here, or by a kill
                said, number = unsealed(text)
                there.add(said["t"])
                step = said["step"]
        added = b"\n" if tail and not tail.endswith(b"\n") else b""
        for t in sorted({*samples} - there):
            step += 1
            for name, value in samples[t].items():
                number += 1
                added += encoded(Line(t, step, name, value), number)
        ledger.write(added)


def _taken(alone: socket.socket, sweep: str) -> bool:
    """Take the one name that a sweep has on this machine, which the kernel frees with the socket's last process.

    Raises:
        OSError: there are no such names here.
    """
    name = sha256(f"{os.getuid()} {machine()} {sweep}".encode()).hexdigest()
    try:
        alone.bind(f"\0engram-watch-{name[:32]}")
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True


def _processor() -> tuple[int, int]:
    """(ticks that all cores worked, ticks in all) since the machine started; zeros where the system does not say."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return 0, 0
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)  # idle and waiting for disks


def _memory() -> dict[str, float]:
    try:
        rows = [line.split() for line in Path("/proc/meminfo").read_text().splitlines()]
    except OSError:
        return {}
    size = {row[0]: int(row[1]) * 1024 for row in rows}
    used = size["MemTotal:"] - size["MemAvailable:"]
    return {
        "system_memory_usage_megabytes": used / _MEGABYTE,
        "system_memory_usage_percentage": 100 * used / size["MemTotal:"],
    }


def _graphics() -> dict[str, float]:
    """What NVIDIA's driver says of each GPU; nothing where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    try:
        asked = [program, f"--query-gpu={_GPU}", "--format=csv,noheader,nounits"]
        lines = subprocess.run(asked, capture_output=True, text=True, timeout=5, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return {}
    values: dict[str, float] = {}
    for number, line in enumerate(lines):
        for name, text in zip(_GPU_NAMES, line.split(","), strict=False):
            if text.strip().replace(".", "", 1).isdigit():  # else "[N/A]"
                values[f"gpu_{number}_{name}"] = float(text)
    return values
