"""What feedback costs: steps of gated feedback against plain passes, and memory of a training against its steps.

The peer computes the stages before the lowest target once and those that feedback runs again T times, from the same
image: what is more is paths, gates, the norm of each step and the loop. Times are processor time of one thread, the
least of many rounds taken in turns. Memory is what the resident set grows by at its peak, in a process of its own for
each, of training steps whose steps are computed again in the backward pass: T = 16 against T = 4. There every tensor
has pages of its own, which go back when it does: what is measured is what is kept, and no holes in the heap. Predictive
coding against predify is the script ``predictive``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from engram.backbone.nets.making import adapt, build
from engram.benchmarks.perf.harness import STATUS, Row, apart, least, resident

SHAPE, CLASSES, STEPS, ROUNDS = (3, 32, 32), 10, 4, 9
CASES = (("vgg-small", 64), ("resnet-tiny", 64), ("vgg-tiny", 64))
"""Networks and their batches."""
SHORT, LONG = 4, 16
THREADS = torch.get_num_threads()


def plain(backbone: str) -> Any:
    torch.manual_seed(0)
    mean, std = torch.zeros(SHAPE[0]), torch.ones(SHAPE[0])
    made = build(backbone, {}, SHAPE, CLASSES, mean, std).backbone
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def images(count: int) -> Tensor:
    drawn = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))
    return drawn.contiguous(memory_format=torch.channels_last)


def passes(net: Any, lowest: int, x: Tensor) -> Tensor:
    """The features of STEPS passes of the stages behind ``lowest``, after one of those before."""
    held = x
    for stage in range(lowest + 1):
        held = net.apply_stage(stage, held)
    found = []
    for _ in range(STEPS):
        value = held
        for stage in range(lowest + 1, len(net.stage_channels)):
            value = net.apply_stage(stage, value)
        found.append(net.apply_tail(value))
    return torch.stack(found)


def infer(net: nn.Module, run: Callable[[], Tensor]) -> Callable[[], None]:
    def work() -> None:
        with torch.inference_mode():
            run()

    return work


def train(net: nn.Module, run: Callable[[], Tensor]) -> Callable[[], None]:
    def work() -> None:
        net.zero_grad(set_to_none=True)
        run().square().mean().backward()

    return work


def measure() -> list[Row]:
    torch.set_num_threads(1)
    try:
        rows = [row for backbone, batch in CASES for row in _speed(backbone, batch)]
        known = CASES[:2] if STATUS.exists() else ()
        return rows + [row for backbone, batch in known for row in _memory(backbone, batch)]
    finally:
        torch.set_num_threads(THREADS)


def _speed(backbone: str, batch: int) -> list[Row]:
    peer, x, rows = plain(backbone), images(batch), []
    ours: Any = adapt(peer, "feedback.gated", {"steps": STEPS})
    for name, work, mode in (("infer", infer, False), ("train", train, True)):
        ours.train(mode)
        peer.train(mode)
        both = (work(ours, lambda: ours.forward_steps(x)), work(peer, lambda: passes(peer, ours.lowest, x)))
        mine, theirs = least(both, ROUNDS)
        against = f"one pass to stage {ours.lowest + 1}, {STEPS} of the rest, batch {batch}"
        rows.append(_row(f"{backbone}/{name}", mine, theirs, against, "s", ROUNDS))
    return rows


def peaks(backbone: str, batch: int, steps: int) -> list[float]:
    """Megabytes that a training step needs; for a process of its own, see `apart`."""
    net: Any = adapt(plain(backbone), "feedback.gated", {"steps": steps}).train()
    net.recompute = True
    train(net, lambda: net.forward_steps(images(2)))()  # whatever libraries load at their first step
    before = resident("VmRSS")
    train(net, lambda: net.forward_steps(images(batch)))()
    return [resident("VmHWM") - before]


@contextmanager
def _pages_of_their_own() -> Iterator[None]:
    """Let processes that are begun inside map every tensor by itself, whatever their parent was told."""
    before = dict(os.environ)
    os.environ.pop("MALLOC_MMAP_MAX_", None)
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _memory(backbone: str, batch: int) -> list[Row]:
    with _pages_of_their_own():
        (longer,), (shorter,) = (apart(peaks, backbone, batch, steps) for steps in (LONG, SHORT))
    against = f"the same with T = {SHORT}, batch {batch}"
    return [_row(f"{backbone}/peak-memory-T{LONG}", longer, shorter, against, "MB", 1)]


def _row(name: str, ours: float, peer: float, peer_name: str, unit: str, n: int) -> Row:
    name = f"feedback/{name}"
    return Row(name=name, ours=ours, peer=peer, peer_name=peer_name, unit=unit, higher_is_better=False, n=n)
