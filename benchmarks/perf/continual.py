"""Seconds per iteration of continual learning: against a bare loop, against Avalanche, and against the number of tasks.

The network is 784-400-400-10, batches are 128, Adam 1e-3, on two digits of MNIST per task (random images of its shape
where ``ENGRAM_DATA`` has none: the time does not depend on them). Everything is timed in the second task, where
penalties pull and buffers are full. The bare loop is what one writes by hand for this very work: bytes in memory, a
batch is an index select, fused Adam. Avalanche gets its fastest sensible settings: tensors in memory, no worker, no
metrics, no logger, fused Adam; only its inner loop is timed, neither loaders nor what follows a task.

On a GPU, where there is one: ResNet-18 on random pictures of CIFAR-10's shape, batches of 32 and as many rows replayed,
with recorded passes and without (`engram.backbone.training.recorded`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from engram.backbone.contract import Scalar
from engram.backbone.data.load import Data, load
from engram.backbone.data.sets import MemorySplit
from engram.backbone.errors import UserError
from engram.backbone.hardware import Precision, has_bf16, suit_threads
from engram.benchmarks.perf.harness import Row, interleaved
from engram.continual.avalanche import guard
from engram.continual.avalanche.benchmark import to_benchmark
from engram.continual.experiment.configs import StreamConfig
from engram.continual.experiment.experiment import StreamExperiment
from engram.continual.experiment.learner import Learner
from engram.continual.experiment.stream import Stream

ROUNDS = 15
BUILDS = 5
"""Pairs made anew for a row; how its tensors lie in memory makes a learner or a loop a tenth faster or slower."""
BATCH, LR, BUFFER, UNITS = 128, 1e-3, 500, 400
THREADS = torch.get_num_threads()
OPTIONS: dict[str, dict[str, Scalar]] = {
    "si": {"si.c": 0.1},
    "ewc": {"ewc.strength": 100.0, "ewc.samples": 128},
    "mas": {"mas.strength": 1.0},
}
STRATEGIES = ("finetune", "si", "ewc", "er")
OTHERS = ("mas", "lwf", "derpp", "er-ace", "agem", "dgr", "bi-r")
"""Timed against the number of tasks only; iCaRL needs new classes, isolation outputs for every task."""
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "finetune": ("Naive", {}),
    "ewc": ("EWC", {"ewc_lambda": 50.0}),
    "er": ("Replay", {"mem_size": BUFFER}),
}
RECORDED = ("er", "derpp")
"""Timed on a GPU with recorded passes and without."""
SOME = 12_800
"""Images in all; an epoch of one of five tasks has some 20 steps."""
MANY = 100
FEW = 1280
"""Images in each of many tasks."""


Timed = tuple[Callable[[], object], int]
"""What to time, and how many steps it takes."""


class _Services:
    """Nowhere to write to."""

    download, inputs = False, {}
    trial_dir = data_root = Path()

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def log(self, step: int, metrics: Any) -> None: ...
    def progress(self, done: float, total: float, text: str = "") -> None: ...
    def provenance(self, **facts: Any) -> None: ...
    def table(self, title: str, rows: Any) -> None: ...


def _data() -> Data:
    try:
        data = load("mnist", {}, root=Path(os.environ.get("ENGRAM_DATA", "data")), validation=0.0)
    except UserError:
        return _random(SOME)
    return replace(data, train=data.train.select(torch.arange(SOME)))


def _random(count: int, shape: tuple[int, int, int] = (1, 28, 28)) -> Data:
    drawn = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, *shape), dtype=torch.uint8, generator=drawn)
    split = MemorySplit(images, torch.arange(count) % 10)
    names = tuple(map(str, range(10)))
    mean, std = torch.full((shape[0],), 0.5), torch.full((shape[0],), 0.29)
    return Data("random", split, None, split.select(torch.arange(100)), names, shape, mean, std, "none")


def _config(strategy: str, iterations: int = 20, **options: Any) -> StreamConfig:
    ours = {"strategies": (f"continual.{strategy}",), "strategies_options": OPTIONS.get(strategy, {})}
    ours |= {"iterations": iterations, "batch_size": BATCH, "lr": LR, "buffer": BUFFER}
    return StreamConfig.resolve({**ours, "backbone_options": {"units": UNITS}, **options})


def _at_task(config: StreamConfig, data: Data, task: int, device: str = "cpu") -> Learner:
    """A learner at the beginning of a task (the first is 1), to be trained for as long as one likes."""
    torch.manual_seed(0)
    ours = StreamExperiment(config, _Services(device))
    stream = Stream(config, data, device)
    state = ours.learning.start(stream, ours._beginning(stream).model)
    ours.learning.begin(state)
    while state.learner.task < task - 1:
        ours.step(state)
    state.learner.trainer.total_steps = 10**9
    return state.learner


def _epoch(learner: Learner, times: int = 1) -> Timed:
    def run() -> None:
        for _ in range(times):
            learner.advance(math.inf)

    return run, times * learner.steps_per_epoch


def _bare(data: Data) -> Timed:
    """One epoch on the images of the second task, and its steps."""
    split = Stream(_config("finetune"), data, "cpu").task(1).train
    assert isinstance(split, MemorySplit)
    images, labels = split.images, split.labels
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, UNITS), nn.ReLU(), nn.Linear(UNITS, UNITS), nn.ReLU())
    net.append(nn.Linear(UNITS, 10))
    optimizer = torch.optim.Adam(net.parameters(), LR, fused=True)
    scale, shift = 1 / (255 * data.std[0].item()), data.mean[0].item() / data.std[0].item()

    def epoch() -> None:
        for chosen in torch.randperm(len(labels)).split(BATCH):
            x = images.index_select(0, chosen).float() * scale - shift
            F.cross_entropy(net(x), labels.index_select(0, chosen)).backward()
            optimizer.step()
            optimizer.zero_grad()

    return epoch, -(-len(labels) // BATCH)


def _avalanche(name: str, arguments: dict[str, Any], data: Data) -> Timed:
    """One epoch on the second task with Avalanche's inner loop, and its steps; the first task is behind it."""
    stream = Stream(_config("finetune", tasks=5), data, "cpu")
    benchmark = to_benchmark(stream)
    torch.manual_seed(0)
    units = [nn.Flatten(), nn.Linear(784, UNITS), nn.ReLU(), nn.Linear(UNITS, UNITS), nn.ReLU(), nn.Linear(UNITS, 10)]
    net = nn.Sequential(*units)
    with guard.quiet():
        strategy: Any = guard.strategy(name)(
            model=net,
            optimizer=torch.optim.Adam(net.parameters(), LR, fused=True),
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=BATCH,
            train_epochs=1,
            evaluator=guard.module("avalanche.training.plugins").EvaluationPlugin(),
            **arguments,
        )
        strategy.train(benchmark.train_stream[0], eval_streams=[])
        strategy.is_training, strategy.experience = True, benchmark.train_stream[1]
        strategy.model.train()
        strategy._before_training_exp()
    return strategy.training_epoch, len(strategy.dataloader)


def _row(name: str, pair: Callable[[], tuple[Timed, Timed]], peer_name: str, builds: int = BUILDS) -> Row:
    """``pair`` makes ours and the peer; the row is the pair whose ratio is the median."""
    found = []
    for _ in range(builds):
        (ours, steps), (peer, peer_steps) = pair()
        mine, theirs = interleaved(ours, peer, ROUNDS)
        found.append((mine / steps, theirs / peer_steps))
    ours, peer = sorted(found, key=lambda times: times[0] / times[1])[len(found) // 2]
    return Row(
        name=f"continual/{name}", ours=ours, peer=peer, peer_name=peer_name, unit="s/iteration", higher_is_better=False,
        n=ROUNDS * builds,
    )  # fmt: skip


def measure() -> list[Row]:
    try:
        suit_threads(BATCH * 784)
        data = _data()
        rows = [_against_bare(strategy, data) for strategy in STRATEGIES]
        precisions: tuple[Precision, ...] = ("fp32", "bf16") if has_bf16("cpu") else ("fp32",)
        rows += [_against_avalanche(strategy, data, precision) for strategy in PEERS for precision in precisions]
        rows += [_against_tasks(strategy, 10) for strategy in STRATEGIES]
        rows += [_against_tasks(strategy, MANY) for strategy in (*STRATEGIES, *OTHERS)]
        return rows + [_against_launches(name, "cuda") for name in RECORDED if torch.cuda.is_available()]
    finally:
        torch.set_num_threads(THREADS)


def _against_bare(strategy: str, data: Data) -> Row:
    def pair() -> tuple[Timed, Timed]:
        return _epoch(_at_task(_config(strategy), data, 2)), _bare(data)

    return _row(f"{strategy}/bare", pair, "a loop written by hand")


def _against_avalanche(strategy: str, data: Data, precision: Precision) -> Row:
    """Avalanche computes in fp32 whatever ours does: its loop knows no mixed precision."""
    name, arguments = PEERS[strategy]

    def pair() -> tuple[Timed, Timed]:
        return _epoch(_at_task(_config(strategy, precision=precision), data, 2)), _avalanche(name, arguments, data)

    where = "avalanche" if precision == "fp32" else f"avalanche-{precision}"
    return _row(f"{strategy}/{where}", pair, f"avalanche-lib {name}, fp32, no worker")


def _against_tasks(strategy: str, task: int) -> Row:
    """The same work, late in a stream of permuted images and at its beginning; a ratio of 1 is a flat cost."""
    data = _random(FEW)
    config = _config(strategy, scenario="permuted", tasks=MANY, iterations=3)
    late, early = (_epoch(_at_task(config, data, number), 3) for number in (task, 2))
    return _row(f"{strategy}/task-{task}", lambda: (late, early), "itself at the second task", builds=1)


def _against_launches(strategy: str, device: str, backbone: str = "resnet18") -> Row:
    """Recorded passes, and the same launched kernel by kernel."""
    given = {"strategies": (f"continual.{strategy}",), "iterations": 20, "batch_size": 32, "lr": 1e-2, "buffer": BUFFER}
    given |= {"optimizer": "sgd", "flip": "random", "translate": 4}
    config = StreamConfig.resolve({**given, "backbone": backbone, "backbone_options": {"pooling": "stride"}})

    def pair() -> tuple[Timed, Timed]:
        ours, theirs = (_at_task(config, _random(SOME, (3, 32, 32)), 2, device) for _ in range(2))
        theirs.trainer.passes = None
        return _epoch(ours), _epoch(theirs)

    return _row(f"{strategy}/recorded", pair, "the same passes, not recorded", builds=1)
