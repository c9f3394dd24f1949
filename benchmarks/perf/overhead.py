"""What the runner costs: ``engram run`` against the same loop called directly, start-up apart.

Both are processes of their own; the difference between a long and a short training of the same kind leaves start-up
out, and the short one alone shows it. Epochs take some 0.05 s, each with four numbers to record: a hard case.
Both have the allocator settings that every worker gets.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from engram.benchmarks.perf.harness import Row, seconds

ROUNDS = 3
SHORT, LONG = 1, 241
NET = ("--backbone", "vgg-tiny", "--backbone.width", "2.0")
DIRECT = """
import sys
from pathlib import Path
import torch
from engram.backbone.data.load import load
from engram.backbone.experiments.configs import TrainConfig
from engram.backbone.hardware import Machine, choose_precision, suit_threads
from engram.backbone.measures.scoring import score
from engram.backbone.nets.making import build
from engram.backbone.seeding import seed_everything
from engram.backbone.training.loop import Trainer
from engram.backbone.training.preparing import prepare
config = TrainConfig.resolve({"epochs": int(sys.argv[1]), "backbone": "vgg-tiny", "backbone_options": {"width": 2.0}})
seed_everything(0)
data = load("digits", {}, root=Path())
suit_threads(config.batch_size * 64)
model = build(config.backbone, config.backbone_options, data.in_shape, len(data.classes), data.mean, data.std)
precision = choose_precision("auto", "cpu")
prepare(model, data.train, config.seed)
trainer = Trainer(model, data.train, config, Machine("cpu", precision))
while not trainer.done:
    if trainer.advance() is not None:
        score(trainer.scored_model, data.validation, "cpu", precision)
print(score(trainer.scored_model, data.test, "cpu")["accuracy"])
"""


def _direct(epochs: int) -> None:
    env = {**os.environ, "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**34)}  # as workers have it
    subprocess.run([sys.executable, "-c", DIRECT, str(epochs)], check=True, capture_output=True, env=env)


def _engram(epochs: int) -> None:
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "engram.benchmarks", "run", "backbone.train", *NET, "--epochs", str(epochs)]
        subprocess.run([*command, "--out", str(Path(out))], check=True, capture_output=True)


def measure() -> list[Row]:
    times = {(who, epochs): [] for who in ("ours", "peer") for epochs in (SHORT, LONG)}
    for index in range(ROUNDS):
        turns = [("ours", _engram), ("peer", _direct)]
        for who, run in turns if index % 2 == 0 else turns[::-1]:
            for epochs in (SHORT, LONG):
                times[who, epochs].append(seconds(lambda run=run, epochs=epochs: run(epochs)))
    median = {key: statistics.median(values) for key, values in times.items()}
    loop = {who: median[who, LONG] - median[who, SHORT] for who in ("ours", "peer")}
    common = {"peer_name": "the loop called directly", "unit": "s", "higher_is_better": False, "n": ROUNDS}
    return [
        Row(
            name=f"runner/loop, {LONG - SHORT} epochs of vgg-tiny on digits",
            ours=loop["ours"],
            peer=loop["peer"],
            **common,
        ),
        Row(name="runner/whole process, 1 epoch", ours=median["ours", SHORT], peer=median["peer", SHORT], **common),
    ]
