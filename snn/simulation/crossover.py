"""When it pays to follow spikes: up to which share of inputs that spike, measured once on every machine.

Where the two meet depends on the processor's vectors and caches, so that no constant is right: it is found when first
needed, in about a second of processor time, and kept beside the compiled functions. The limits are then the same in
every process, and with them the order of summation and the last bits of every result.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import nn

from engram.snn.simulation import events
from engram.snn.simulation.events import Driven, Spikes

UNMEASURED = 0.1
"""The limit where nothing can be kept from one process to the next: dense layers are never far behind there."""
FILTERS = (16, 64, 256)
"""Measured at these; other layers take what is nearest."""

_STEPS, _IMAGES, _INPUTS, _SIDE = 8, 2, 64, 16  # what a layer is measured on
_SPARSE, _DENSE = 0.05, 0.4
_ROUNDS, _TRY_SECONDS = 7, 0.004
_LEAST, _MOST = 0.02, 0.8  # a disturbed measurement must not rule out one of the two


def pays(spikes: Spikes, layer: nn.Module) -> bool:
    """Whether following the spikes is possible and no slower than a dense layer: sizes and density alone decide."""
    if not events.fits(spikes, layer):
        return False
    assert isinstance(layer, nn.Conv2d | nn.Linear)  # nothing else fits
    kind = "linear" if isinstance(layer, nn.Linear) else "pooled" if spikes.pool > 1 else "plain"
    return spikes.density <= limits()[_name(kind, len(layer.weight))]


def _name(kind: str, filters: int) -> str:
    return f"{kind}-{min(FILTERS, key=lambda each: max(each / filters, filters / each))}"


@cache
def limits() -> dict[str, float]:
    """Kind of layer and number of filters -> the largest density at which following is as fast as a dense layer."""
    names = [(kind, filters) for kind in ("plain", "pooled", "linear") for filters in FILTERS]
    path = kept_at()
    if path is None:
        return {_name(kind, filters): UNMEASURED for kind, filters in names}
    if not path.exists():
        _publish(path, {_name(kind, filters): _crossing(kind, filters) for kind, filters in names})
    return json.loads(path.read_text())


def kept_at() -> Path | None:
    """Where the limits of this processor, compiler, code and torch are kept; None where nothing lasts."""
    kernel = events.library()
    assert kernel is not None  # spikes exist only where there is one
    built = Path(kernel._name)
    return built.with_name(f"{built.stem}-{torch.__version__}.json") if events.lasts() else None


def _publish(path: Path, found: dict[str, float]) -> None:
    """Whoever is first decides, for everybody."""
    own = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    own.write_text(json.dumps(found, indent=1))
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    finally:
        own.unlink()


@torch.inference_mode()
def _crossing(kind: str, filters: int) -> float:
    """The density where both take as long. A dense layer takes the same at any, following grows with the spikes."""
    layer = nn.Linear(_INPUTS * 9, filters) if kind == "linear" else nn.Conv2d(_INPUTS, filters, 3, padding=1)
    layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    sparse, crowded = (_input(kind, density) for density in (_SPARSE, _DENSE))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        low, high, level = _fastest(_followed(sparse, layer), _followed(crowded, layer), _through(sparse, layer))
    finally:
        torch.set_num_threads(threads)
    slope = max(high - low, 0.01 * low) / (crowded.density - sparse.density)
    crossing = sparse.density + (level - low) / slope
    return round(min(max(crossing, _LEAST), _MOST), 2)


def _input(kind: str, density: float) -> Spikes:
    """Spikes that a layer sees at this density, behind a pooling that halves the sides where it is ``pooled``."""
    pool = 2 if kind == "pooled" else 1
    side = _SIDE * pool
    shape = (_STEPS, _IMAGES * _SIDE, _INPUTS * 9) if kind == "linear" else (_STEPS, _IMAGES, side, side, _INPUTS)
    share = 1 - (1 - density) ** (1 / pool**2)
    data = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < share).to(torch.uint8)
    return Spikes(data, int(data.sum()), pool)


def _followed(spikes: Spikes, layer: nn.Conv2d | nn.Linear) -> Callable[[], object]:
    driven = Driven(spikes, layer)
    return lambda: events.convolved_and_fired(driven, torch.zeros_like(driven.like()), None)


def _through(spikes: Spikes, layer: nn.Conv2d | nn.Linear) -> Callable[[], object]:
    like = Driven(spikes, layer).like()
    return lambda: events.fired(layer(spikes.dense()).unflatten(0, (_STEPS, -1)), torch.zeros_like(like), None)


def _fastest(*works: Callable[[], object]) -> list[float]:
    """Of each the least processor time of some tries in turn, which what else the machine does cannot stretch far."""
    counts = [1 + int(_TRY_SECONDS / max(_seconds(work, 2) / 2, 1e-6)) for work in works]  # twice: the first warms up
    times = [[_seconds(work, count) / count for work, count in zip(works, counts, strict=True)] for _ in range(_ROUNDS)]
    return [min(each) for each in zip(*times, strict=True)]


def _seconds(work: Callable[[], object], count: int) -> float:
    began = time.thread_time()
    for _ in range(count):
        work()
    return time.thread_time() - began
