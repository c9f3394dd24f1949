"""Training steps with the exact back-door head of 64 confounders, against those with a linear head.

Both train the same network on the same batches in the same loop, backbone included. With the cross-entropy the head's
answers are computed, with its own objective (``backdoor``) the answers given each confounder as well. Times are
processor time of one thread, the least of many rounds taken in turns.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from engram.backbone.contract import Named, Objective, ObjectiveSetting
from engram.backbone.data.columns import CONTEXT
from engram.backbone.data.sets import MemorySplit
from engram.backbone.hardware import Machine
from engram.backbone.nets.making import LINEAR, build
from engram.backbone.objectives.cross_entropy import CrossEntropy
from engram.backbone.training.loop import Trainer
from engram.backbone.training.options import TrainingOptions
from engram.backbone.training.preparing import fill
from engram.benchmarks.perf.harness import Row, least
from engram.causal.objectives.adjusting import backdoor

CONFOUNDERS, CLASSES, IMAGES, BATCH, ROUNDS = 64, 10, 1280, 128, 60
CASES = (("vgg-tiny", (3, 32, 32)), ("lenet5", (1, 28, 28)))
"""Networks and their images."""
OPTIONS = TrainingOptions(epochs=10_000, batch_size=BATCH, schedule="constant", warmup=0.0)
HEAD = Named("causal.backdoor", 1, {"mode": "exact", "confounders": CONFOUNDERS})
THREADS = torch.get_num_threads()


def compared(backbone: str, shape: tuple[int, int, int]) -> list[Row]:
    random = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (IMAGES, *shape), dtype=torch.uint8, generator=random)
    columns = {CONTEXT: torch.arange(IMAGES) % CONFOUNDERS}
    data = MemorySplit(pictures, torch.randint(CLASSES, (IMAGES,), generator=random), columns)
    setting = ObjectiveSetting(data=data, outputs=CLASSES, label_smoothing=0.0, device="cpu")

    def trainer(head: Named, objective: Objective) -> Trainer:
        torch.manual_seed(0)
        model = build(backbone, {}, shape, CLASSES, torch.zeros(shape[0]), torch.ones(shape[0]), head)
        fill(model, data, 0)
        return Trainer(model, data, replace(OPTIONS, batch_size=BATCH), Machine("cpu", "fp32"), objective)

    ours = {"answers": trainer(HEAD, CrossEntropy()), "given": trainer(HEAD, backdoor(None, setting))}
    works = [*ours.values(), trainer(LINEAR, CrossEntropy())]
    *mine, theirs = least([lambda each=each: each.advance(0.0) for each in works], ROUNDS)
    return [
        Row(
            name=f"causal_backdoor/{backbone}/{name}",
            ours=took,
            peer=theirs,
            peer_name=f"linear head, batch {BATCH}",
            unit="s",
            higher_is_better=False,
            n=ROUNDS,
        )
        for name, took in zip(ours, mine, strict=True)
    ]


def measure() -> list[Row]:
    torch.set_num_threads(1)
    try:
        return [row for backbone, shape in CASES for row in compared(backbone, shape)]
    finally:
        torch.set_num_threads(THREADS)
