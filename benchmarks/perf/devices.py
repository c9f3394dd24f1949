"""One training by several processes (``--devices``) against the same one by a single process: the same global batch.

Two processes with half of the cores each against one with all of them; with ENGRAM_GPUS=N, N GPUs against one. As a
script it is one of the processes.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from engram.backbone.data.sets import MemorySplit
from engram.backbone.hardware import Machine, choose_precision, suit_threads
from engram.backbone.nets.making import build
from engram.backbone.ranks import join
from engram.backbone.training.loop import Trainer
from engram.backbone.training.options import TrainingOptions
from engram.benchmarks.perf.harness import Row

CASES = (("lenet5", (1, 28, 28), 128, 100), ("resnet-tiny", (3, 32, 32), 128, 20))
"""Networks, images, images of a batch, steps that are timed."""
ROUNDS = 5


def measure() -> list[Row]:
    gpus = int(os.environ.get("ENGRAM_GPUS", "0"))
    count, device = (gpus, "cuda") if gpus > 1 else (2, "cpu")
    what = f"{count} GPUs" if gpus > 1 else f"{count} processes"
    speeds: tuple[list[list[float]], list[list[float]]] = ([], [])
    for turn in range(ROUNDS):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            speeds[which].append(_speeds((count, 1)[which], device))
    several, alone = (list(map(statistics.median, zip(*each, strict=True))) for each in speeds)
    return [
        Row(
            name=f"training/{net} by {what}, batches of {batch}",
            ours=ours,
            peer=peer,
            peer_name="one process",
            unit="images/s",
            higher_is_better=True,
            n=ROUNDS,
        )
        for (net, _, batch, _), ours, peer in zip(CASES, several, alone, strict=True)
    ]


def _speeds(count: int, device: str) -> list[float]:
    """Images a second of so many processes, in each case."""
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    with TemporaryDirectory() as place:
        started = [
            subprocess.Popen(
                [sys.executable, "-m", __spec__.name, device, f"{place}/store", f"{place}/speeds"],
                env={
                    **os.environ,
                    **{name: str(rank) for name in ("RANK", "LOCAL_RANK")},
                    **{name: str(count) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")},
                    "OMP_NUM_THREADS": str(threads),
                },
            )
            for rank in range(count)
        ]
        try:
            codes = [each.wait() for each in started]
        finally:
            for each in started:
                each.kill()
        if any(codes):
            raise RuntimeError(f"one of {count} processes failed")
        return json.loads(Path(place, "speeds").read_text())


def _speed(case: int, device: str) -> float:
    """Images a second, by this process and those that it works with."""
    net, shape, batch, steps = CASES[case]
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    suit_threads(batch * math.prod(shape))
    torch.manual_seed(0)
    data = MemorySplit(
        torch.randint(0, 256, ((steps + 5) * batch, *shape), dtype=torch.uint8), torch.arange((steps + 5) * batch) % 10
    )
    mean, std = torch.full((shape[0],), 0.5), torch.full((shape[0],), 0.25)
    options = TrainingOptions(epochs=1, batch_size=batch, flip="random", translate=2)
    trainer = Trainer(
        build(net, {}, shape, 10, mean, std), data, options, Machine(device, choose_precision("auto", device))
    )
    while trainer.step < 5:
        trainer.advance(0)
    before, images = trainer.progress.seconds, trainer.step
    while not trainer.done:
        trainer.advance(2.0)
    return (trainer.step - images) * batch / (trainer.progress.seconds - before)


def _main(words: Sequence[str]) -> None:
    """One of the processes; the first one writes the speeds."""
    device, store, result = words
    ranks = join(device, store) if int(os.environ["WORLD_SIZE"]) > 1 else None
    found = [_speed(case, device) for case in range(len(CASES))]
    if ranks is None or ranks.leads:
        Path(result).write_text(json.dumps(found))
    if ranks is not None:
        ranks.leave()


if __name__ == "__main__":
    _main(sys.argv[1:])
