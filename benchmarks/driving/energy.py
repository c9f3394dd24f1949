"""Joules that this machine has used, where its own meters say so: processors by RAPL, GPUs by NVML.

What is counted is all of the packages and cards that can be read, whoever used them; memory, disks and fans are not.
There is no estimate where there is no meter.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Mapping
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
NVML = "libnvidia-ml.so.1"


class Meter:
    """Sums what counters have gone up by between calls of `joules`, at most minutes apart: they run over.

    ``sources``: the names of the counters that can be read here.
    """

    def __init__(self, powercap: Path = POWERCAP, nvml: str = NVML) -> None:
        zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        self._packages = [zone for zone in zones if _name(zone).startswith("package")]  # psys holds them, too
        self._cards = _Cards(nvml)
        self._before = self._read()
        self._sum = 0.0
        self.sources = tuple(self._before)

    def joules(self) -> float:
        """Since the meter was made. What a GPU's counter lost when its driver was started anew is lost."""
        now = self._read()
        for name, (value, most) in now.items():
            before, _ = self._before.get(name, (value, most))
            self._sum += value - before if value >= before else max(0.0, value - before + most)
        self._before = {**self._before, **now}
        return self._sum

    def _read(self) -> Mapping[str, tuple[float, float]]:
        """Counter -> (joules, where it begins again; 0: nowhere)."""
        found: dict[str, tuple[float, float]] = {}
        for zone in self._packages:
            with contextlib.suppress(OSError, ValueError):
                value = int((zone / "energy_uj").read_text())
                most = int((zone / "max_energy_range_uj").read_text())
                found[f"{_name(zone)} (RAPL)"] = (value / 1e6, most / 1e6)
        return {**found, **self._cards.read()}


def _name(zone: Path) -> str:
    try:
        return (zone / "name").read_text().strip()
    except OSError:
        return ""


class _Cards:
    """The GPUs whose counters NVML reads; none where there is no NVML."""

    def __init__(self, library: str) -> None:
        self._handles: list[ctypes.c_void_p] = []
        try:
            self._nvml = ctypes.CDLL(library)
        except OSError:
            return
        count = ctypes.c_uint()
        if self._nvml.nvmlInit_v2() or self._nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            return
        for index in range(count.value):
            handle = ctypes.c_void_p()
            if self._nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)) == 0:
                self._handles.append(handle)

    def read(self) -> dict[str, tuple[float, float]]:
        found: dict[str, tuple[float, float]] = {}
        for index, handle in enumerate(self._handles):
            value = ctypes.c_ulonglong()
            if self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(value)) == 0:
                found[f"GPU {index} (NVML)"] = (value.value / 1e3, 0.0)  # it never comes round
        return found
