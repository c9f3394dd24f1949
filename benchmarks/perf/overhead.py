"""What the runner costs: ``engram run`` against the same loop called directly, start-up apart.

Both are processes of their own; the difference between a long and a short training of the same kind leaves start-up
out, and the short one alone shows it. Epochs take some 0.05 s, each with four numbers to record: a hard case.
Both have the allocator settings that every worker gets.

Short trials: a sweep of trials that wait for a second each, against no overhead at all; and the time of the processor
that its driver takes for each, the tracking store included, against the 20 ms that it may take.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import engram
from engram.benchmarks.perf.harness import Row, seconds

ROUNDS = 3
TRIALS, FEW_TRIALS, WORKERS = 64, 8, 2
MAY_TAKE_MS = 20.0  # of the processor, for each trial
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


DRIVER = """
import sys, time
from engram.benchmarks.cli import main
code = main(sys.argv[1:])
print(time.thread_time(), time.process_time())
sys.exit(code)
"""


def _installed(folder: Path) -> dict[str, str]:
    """An environment in which the plugin of our tests that has trials of any length is installed."""
    plugins = Path(engram.__file__).parent.parent / "tests" / "thirdparty"
    about = folder / "toy-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[engram.plugins]\ntoy = toy.plugin:PLUGIN\n")
    path = [str(folder), str(plugins), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def _sweep(trials: int) -> tuple[float, float, float]:
    """Seconds of a sweep of so many trials of a second: by the clock, of the thread that drives it, of its process."""
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder) / "second.toml"
        suite.write_text(f'experiment = "toy.wait"\nseeds = {trials}\n[options]\nseconds = 1.0\n')
        words = ["sweep", str(suite), "--workers", str(WORKERS), "--out", str(Path(folder) / "runs")]
        began = time.perf_counter()
        command = [sys.executable, "-c", DRIVER, *words]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=_installed(Path(folder)))
        loop, whole = map(float, done.stdout.split()[-2:])
        return time.perf_counter() - began, loop, whole


def short_trials() -> list[Row]:
    few, many = _sweep(FEW_TRIALS), _sweep(TRIALS)
    clock, loop, whole = ((after - before) / (TRIALS - FEW_TRIALS) for before, after in zip(few, many, strict=True))
    ideal, name = TRIALS / WORKERS, f"runner/{TRIALS} trials of a second on {WORKERS} workers"
    idle = {"peer": ideal, "peer_name": "no overhead", "unit": "s", "higher_is_better": False, "n": 1}
    busy = {"peer": MAY_TAKE_MS, "peer_name": "what it may take", "unit": "ms", "higher_is_better": False, "n": 1}
    return [
        Row(name=name, ours=many[0], **idle),
        Row(name=f"{name}, start and end apart", ours=clock * TRIALS, **idle),
        Row(name="runner/processor of the driver for a trial", ours=loop * 1000, **busy),
        Row(name="runner/processor of the driver for a trial, with MLflow's store", ours=whole * 1000, **busy),
    ]


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
        *short_trials(),
    ]
