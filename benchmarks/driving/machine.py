"""How busy the machine of a sweep's driver is, once for all its trials, under the names that MLflow has for it.

Samples go to a ledger in the sweep's folder first, as measurements of trials do, so that no store's absence loses any.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from pathlib import Path

from engram.benchmarks.records.lines import LEDGER, last_line
from engram.benchmarks.worker.ledger import Ledger

SECONDS = 10.0
"""Between two samples."""
_MEGABYTE = 1e6
_GPU = "utilization.gpu,memory.used,memory.total,power.draw"
_GPU_NAMES = ("utilization_percentage", "memory_usage_megabytes", "memory_total_megabytes", "power_usage_watts")


class Watch:
    """A thread that samples the machine while a sweep runs; ``folder`` is the sweep's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        try:
            before = last_line(self.folder / LEDGER)
            step, busy = (before.step + 1 if before else 0), _processor()
            with Ledger(self.folder / LEDGER) as ledger:
                while not self._stop.wait(SECONDS):
                    now = _processor()
                    ledger.log(step, {f"system/{name}": value for name, value in self._sample(busy, now).items()})
                    step, busy = step + 1, now
        except OSError:
            return  # a full or read-only disk: trials say it themselves

    def _sample(self, before: tuple[int, int], now: tuple[int, int]) -> dict[str, float]:
        disk = shutil.disk_usage(self.folder)
        values = {
            "disk_usage_percentage": 100 * disk.used / disk.total,
            "disk_available_megabytes": disk.free / _MEGABYTE,
        }
        if now[1] > before[1]:
            values["cpu_utilization_percentage"] = 100 * (now[0] - before[0]) / (now[1] - before[1])
        return values | _memory() | _graphics()


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
