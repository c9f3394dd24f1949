"""One spiking network in training and inference: time, memory, accuracy; against snnTorch, Norse, SpikingJelly, sinabs.

The network and how each library writes it stand in ``snn_peers``. Batch 32, 28 x 28, T = 16. A training step is
forward, cross-entropy on the spikes summed over time, backward, Adam. Each peer is measured in fp32 against our fp32,
and in the faster of fp32 and bf16 autocast against our bf16. The floor is the same network with ReLU on T x B images,
as PyTorch runs it; ours can be faster, because it pools within the neurons' pass. Memory is what the resident set grew
by at its peak, in a process of its own. Accuracy is after the same short training from the same weights, over seeds.
"""

from __future__ import annotations

import os
import statistics
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.backbone.data.load import Data, load
from engram.backbone.errors import UserError
from engram.backbone.hardware import Precision, autocast, has_bf16
from engram.backbone.measures.intervals import interval
from engram.benchmarks.perf.harness import STATUS, Row, apart, interleaved, resident, seconds
from engram.benchmarks.perf.snn_peers import PEERS, Ours, build

STEPS, BATCH, SIDE = 16, 32, 28
ROUNDS = 9
LENGTHS = (4, 8, 16, 32, 64, 128, 256)
PEER_ON_CURVE = "SpikingJelly"
SEEDS = (0, 1, 2)
TRAINING_STEPS, TRAINING_T, SCORED = 200, 8, 2000


class Run:
    """A network with its optimizer, and one batch of random frames."""

    def __init__(self, net: nn.Module, precision: Precision, steps: int = STEPS) -> None:
        self.net, self.precision = net, precision
        self.optimizer = torch.optim.Adam(net.parameters(), 1e-3 * getattr(net, "weights_larger", 1.0))
        generator = torch.Generator().manual_seed(0)
        self.x = (torch.rand(steps, BATCH, 1, SIDE, SIDE, generator=generator) < 0.3).float()
        self.y = torch.randint(0, 10, (BATCH,), generator=generator)

    def train(self) -> None:
        self.step(self.x, self.y)

    def step(self, x: Tensor, y: Tensor) -> None:
        self.optimizer.zero_grad()
        with autocast("cpu", self.precision):
            counts = self.net(x)
        F.cross_entropy(counts.float(), y).backward()
        self.optimizer.step()

    @torch.no_grad()
    def infer(self, x: Tensor | None = None) -> Tensor:
        with autocast("cpu", self.precision):
            return self.net(self.x if x is None else x).float()


def measure() -> list[Row]:
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if has_bf16("cpu") else ("fp32",)
    rows = [row for precision in precisions for row in _speed(precision)]
    if STATUS.exists():
        rows += [row for precision in precisions for row in _memory(precision)]
    return rows + _curve(precisions[-1]) + _accuracy(precisions[-1])


# --- time ---------------------------------------------------------------------------------------------------------


def _speed(precision: Precision) -> list[Row]:
    ours = Run(build("ours"), precision)
    rows = []
    for name in (*PEERS, "floor"):
        theirs = Run(build(name), precision)
        if name != "floor":
            theirs = _faster(name, precision)
        against = f"{name}, {theirs.precision}" if name != "floor" else f"the same with ReLU, {precision}"
        for work in ("train", "infer"):
            times = interleaved(getattr(ours, work), getattr(theirs, work), ROUNDS)
            rows.append(_row(f"{precision}/{work}/{name}", *times, against, "s"))
    return rows


def _faster(name: str, precision: Precision) -> Run:
    """The peer in our precision, or in fp32 where that is faster (an eager scan gains little from bf16)."""
    plain = Run(build(name), "fp32")
    if precision == "fp32":
        return plain
    low = Run(build(name), precision)
    times = interleaved(plain.train, low.train, rounds=3)
    return plain if times[0] < times[1] else low


def _row(name: str, ours: float, peer: float, peer_name: str, unit: str, n: int = ROUNDS) -> Row:
    name = f"snn-training/{name}"
    return Row(name=name, ours=ours, peer=peer, peer_name=peer_name, unit=unit, higher_is_better=False, n=n)


# --- memory -------------------------------------------------------------------------------------------------------


def peaks(name: str, precision: Precision, lengths: tuple[int, ...], checkpointed: bool = False) -> list[float]:
    """Megabytes that training steps of growing length need; for a process of its own, see `apart`."""
    net = build(name)
    Run(net, precision, 1).train()  # whatever libraries load at their first step
    before = resident("VmRSS")
    found = []
    for steps in lengths:
        if checkpointed:
            assert isinstance(net, Ours)
            net.pieces = round(steps**0.5)
        run = Run(net, precision, steps)
        run.train()
        run.train()
        found.append(resident("VmHWM") - before)
    return found


def _memory(precision: Precision) -> list[Row]:
    (ours,) = apart(peaks, "ours", precision, (STEPS,))
    rows = []
    for name in (*PEERS, "floor"):
        theirs = "fp32" if name != "floor" else precision
        (peer,) = apart(peaks, name, theirs, (STEPS,))
        rows.append(_row(f"{precision}/peak-memory/{name}", ours, peer, f"{name}, {theirs}", "MB", 1))
    return rows


# --- against the number of steps ----------------------------------------------------------------------------------


def _curve(precision: Precision) -> list[Row]:
    """Time and memory against T; checkpointing over time is compared with ours without it."""
    rows = []
    for steps in LENGTHS:
        ours, peer = Run(Ours(), precision, steps), Run(build(PEER_ON_CURVE), "fp32", steps)
        times = interleaved(ours.train, peer.train, rounds=3)
        again = Run(Ours(pieces=round(steps**0.5)), precision, steps)
        again.train()
        recomputed = statistics.median(seconds(again.train) for _ in range(3))
        rows.append(_row(f"{precision}/T{steps}/train", *times, f"{PEER_ON_CURVE}, fp32", "s", 3))
        rows.append(_row(f"{precision}/T{steps}/train-checkpointed", recomputed, times[0], "ours without", "s", 3))
    if not STATUS.exists():
        return rows
    plain = apart(peaks, "ours", precision, LENGTHS)
    saved = apart(peaks, "ours", precision, LENGTHS, True)
    peer = apart(peaks, PEER_ON_CURVE, "fp32", LENGTHS)
    for steps, without, within, theirs in zip(LENGTHS, plain, saved, peer, strict=True):
        rows.append(_row(f"{precision}/T{steps}/peak-memory", without, theirs, f"{PEER_ON_CURVE}, fp32", "MB", 1))
        rows.append(_row(f"{precision}/T{steps}/peak-memory-checkpointed", within, without, "ours without", "MB", 1))
    return rows


# --- accuracy -----------------------------------------------------------------------------------------------------


def _data() -> Data:
    try:
        return load("mnist", {}, root=Path(os.environ.get("ENGRAM_DATA", "data")))
    except UserError:
        return load("digits", {}, root=Path())


def _frames(images: Tensor) -> Tensor:
    """images: [B, 1, h, w] uint8 -> [T, B, 1, 28, 28], the same at every step."""
    x = F.interpolate(images.float() / 255, (SIDE, SIDE), mode="bilinear")
    return x.expand(TRAINING_T, *x.shape)


def _all(data: Data) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    train, scored = data.train, data.validation or data.test
    chosen = torch.arange(min(len(scored), SCORED))
    return (
        next(train.batches(torch.arange(len(train)), len(train), "cpu"))[:2],
        next(scored.batches(chosen, len(chosen), "cpu"))[:2],
    )


def score(name: str, precision: Precision, seed: int, data: Data) -> float:
    """Accuracy on held-out images after the short training."""
    (images, labels), (held_out, truth) = _all(data)
    run = Run(build(name, seed), precision)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(TRAINING_STEPS):
        batch = torch.randint(len(images), (BATCH,), generator=generator)
        run.step(_frames(images[batch]), labels[batch])
    parts = zip(held_out.split(250), truth.split(250), strict=True)
    right = sum(int((run.infer(_frames(part)).argmax(1) == of).sum()) for part, of in parts)
    return right / len(truth)


def _accuracy(precision: Precision) -> list[Row]:
    data = _data()
    ours = [score("ours", precision, seed, data) for seed in SEEDS]
    rows = []
    for name in PEERS:
        peer = [score(name, "fp32", seed, data) for seed in SEEDS]
        found = interval([a - b for a, b in zip(ours, peer, strict=True)], bounds=(-1.0, 1.0))
        about = f"{name}, fp32: difference {found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f}, 95 %)"
        rows.append(
            Row(
                name=f"snn-training/{precision}/accuracy-{data.name}/{name}",
                ours=statistics.mean(ours),
                peer=statistics.mean(peer),
                peer_name=about,
                unit="fraction",
                higher_is_better=True,
                n=len(SEEDS),
            )
        )
    return rows
