"""Episodes per second against easyfsl: on features that are there, with the same heads, and in training.

Both sides draw their own episodes of the same size from the same features or images. easyfsl collates one episode at a
time; ours are classified many at once. Its distance is not squared: the nearest prototype is the same, so accuracies
agree within chance, which is checked.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from engram.backbone.contract import Named
from engram.backbone.data.sets import MemorySplit
from engram.backbone.errors import must
from engram.backbone.hardware import Machine
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.making import build, build_head
from engram.backbone.training.loop import Trainer
from engram.backbone.training.options import TrainingOptions
from engram.benchmarks.perf.harness import Row, interleaved
from engram.fewshot.episodes.sampling import Pools, Shape
from engram.fewshot.episodes.scoring import score_episodes
from engram.fewshot.episodes.training import EpisodeSampler, Episodic, Through

CLASSES, EACH, WIDTH = 400, 20, 64
"""The size of Omniglot's test part with features of Conv4-64."""
COUNT, TRAINED, GROWN, ROUNDS = 300, 20, 2000, 5
SHAPES = (Shape(5, 1, 15), Shape(5, 5, 15), Shape(20, 1, 15), Shape(20, 5, 15))
PEER = "easyfsl 1.5.0"


def features() -> tuple[Tensor, Tensor]:
    """[N, F] features around a mean for each class, and labels [N]."""
    random = torch.Generator().manual_seed(0)
    means = torch.randn(CLASSES, 1, WIDTH, generator=random)
    rows = means + 1.5 * torch.randn(CLASSES, EACH, WIDTH, generator=random)
    return rows.flatten(0, 1), torch.arange(CLASSES).repeat_interleave(EACH)


def easy() -> Any:
    """The other library.

    Raises:
        UserError: it is not installed.
    """
    try:
        for part in ("datasets", "methods", "samplers", "utils"):
            import_module(f"easyfsl.{part}")
    except ImportError:
        raise must("easyfsl", "installed to be measured against", "none", "pip install -e '.[perf]'") from None
    return import_module("easyfsl")


def loader(values: Tensor, labels: Tensor, shape: Shape, count: int) -> Any:
    """Its episodes of some images or features.

    Its sampler hands an argument to torch's that torch no longer takes, so that none can be made with torch 2.12; for
    this measurement torch's takes it.
    """
    library = easy()
    data = library.datasets.FeaturesDataset(labels.tolist(), values, [str(name) for name in labels.unique().tolist()])
    with patch.object(torch.utils.data.Sampler, "__init__", lambda self, data_source=None: None):
        sampler = library.samplers.TaskSampler(data, shape.ways, shape.shots, shape.queries, count)
    return torch.utils.data.DataLoader(data, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn)


def frozen() -> list[Row]:
    """Scoring features that are there."""
    library = easy()
    table, labels = features()
    pools = Pools.of(MemorySplit(torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8), labels))
    cases: list[tuple[str, Named, Callable[..., Any]]] = [
        ("prototype", Named("fewshot.prototype", 1, {}), library.methods.PrototypicalNetworks),
        ("cosine", Named("cosine", 1, {}), library.methods.SimpleShot),  # which does not centre
        ("tim", Named("fewshot.tim", 1, {}), library.methods.TIM),
    ]
    rows = []
    for name, head, theirs in cases:
        ours = build_head(head, WIDTH, CLASSES).eval()
        peer = theirs(nn.Identity())
        shapes, count = (SHAPES, COUNT) if name != "tim" else (SHAPES[:1], 30)
        for shape in shapes:
            scores: list[float] = [0.0, 0.0]

            mine = partial(_ours, ours, table, pools, shape, count, scores)
            other = partial(_theirs, peer, table, labels, shape, count, scores)
            fast, slow = interleaved(mine, other, ROUNDS)
            _same(name, scores)
            rows.append(_row(f"fewshot/frozen/{name}/{shape.ways}w{shape.shots}s", count / fast, count / slow))
    return rows


def _ours(head: nn.Module, table: Tensor, pools: Pools, shape: Shape, count: int, scores: list[float]) -> None:
    scores[0] = float(score_episodes(head, table, pools, shape, count, 0).mean())


def _theirs(head: Any, table: Tensor, labels: Tensor, shape: Shape, count: int, scores: list[float]) -> None:
    scores[1] = easy().utils.evaluate(head, loader(table, labels, shape, count), "cpu", use_tqdm=False)


def _same(name: str, scores: Sequence[float]) -> None:
    if name != "tim" and abs(scores[0] - scores[1]) > 0.03:
        raise RuntimeError(f"both sides must compute the same; got accuracies {scores} of {name}")


def _row(name: str, ours: float, peer: float) -> Row:
    return Row(name=name, ours=ours, peer=peer, peer_name=PEER, unit="episodes/s", higher_is_better=True, n=ROUNDS)


# --- training -----------------------------------------------------------------------------------------------------


def training() -> list[Row]:
    """Episodes per second of training Conv4-64 in fp32, images in memory, AdamW on both sides."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (CLASSES * EACH, 1, 28, 28), generator=random, dtype=torch.uint8)
    labels = torch.arange(CLASSES).repeat_interleave(EACH)
    rows = []
    for shape in (Shape(5, 1, 5), Shape(20, 1, 5), Shape(60, 1, 5)):
        ours = _trainer(images, labels, shape)
        peer = _their_training(images, labels, shape)
        fast, slow = interleaved(ours, peer, ROUNDS)
        name = f"fewshot/training/conv4/{shape.ways}w{shape.shots}s"
        rows.append(_row(name, TRAINED / fast, TRAINED / slow))
    return rows


def _model() -> Classifier:
    torch.manual_seed(0)
    model = build("conv4", {}, (1, 28, 28), 2, torch.full((1,), 0.5), torch.full((1,), 0.3))
    model.head = Through(build_head(Named("fewshot.prototype", 1, {}), WIDTH, 2))
    return model


def _trainer(images: Tensor, labels: Tensor, shape: Shape) -> Callable[[], object]:
    """The next episodes of one training that is long enough."""
    model, split = _model(), MemorySplit(images, labels)
    sampler = EpisodeSampler(Pools.of(split), shape, TRAINED)
    options = TrainingOptions(epochs=10 * ROUNDS, batch_size=sampler.images, schedule="constant", precision="fp32")
    objective = Episodic(model, shape, 1, 0.0, "cpu")
    trainer = Trainer(model, split, options, Machine("cpu", "fp32"), objective, sampler)
    return lambda: trainer.advance(float("inf"))


def _their_training(images: Tensor, labels: Tensor, shape: Shape) -> Callable[[], object]:
    """As its tutorial trains: a loader of episodes, the support set, the scores of the queries, a step."""
    ours = _model()
    model = easy().methods.PrototypicalNetworks(ours.backbone)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    values = ours.normalise(images)

    def work() -> None:
        model.train()
        for support, known, queries, asked, _ in loader(values, labels, shape, TRAINED):
            optimizer.zero_grad()
            model.process_support_set(support, known)
            nn.functional.cross_entropy(model(queries), asked).backward()
            optimizer.step()

    return work


def measure() -> list[Row]:
    """All comparisons.

    Raises:
        UserError: easyfsl is not installed.
    """
    return [*frozen(), *training(), *growth()]


# --- how it grows -------------------------------------------------------------------------------------------------


def growth() -> list[Row]:
    """Time and memory of an episode's queries as episodes, ways and shots are made four times as many.

    ``ours`` is the cost of the larger for each query and way (for each support image), ``peer`` that of the smaller:
    where it grows linearly the ratio is 1, or more.
    """
    table, labels = features()
    pools = Pools.of(MemorySplit(torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8), labels))
    head = build_head(Named("fewshot.prototype", 1, {}), WIDTH, CLASSES).eval()
    small, count = Shape(5, 1, 10), GROWN

    def work(shape: Shape, count: int) -> Callable[[], object]:
        return lambda: score_episodes(head, table, pools, shape, count, 0)

    rows = []
    for name, shape, times, much in (
        ("episodes", small, 4, 4.0),
        ("ways", Shape(20, 1, 10), 1, 4.0),
        ("shots", Shape(5, 4, 10), 1, 14 / 11),  # images of an episode
    ):
        more, less = interleaved(work(shape, times * count), work(small, count), ROUNDS)
        rows.append(_cost(f"fewshot/growth/{name}/seconds", 1e6 * more / much / count, 1e6 * less / count, "us"))
        memory = _memory(shape, times * count), _memory(small, count)
        rows.append(_cost(f"fewshot/growth/{name}/peak-memory", memory[0], memory[1], "MB"))
    return rows


def _cost(name: str, ours: float, peer: float, unit: str) -> Row:
    return Row(name=name, ours=ours, peer=peer, peer_name="ours, smaller", unit=unit, higher_is_better=False, n=ROUNDS)


def _memory(shape: Shape, count: int) -> float:
    """Peak memory of a process that scores such episodes, MB."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_peak, shape, count).result()


def _peak(shape: Shape, count: int) -> float:
    table, labels = features()
    pools = Pools.of(MemorySplit(torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8), labels))
    score_episodes(build_head(Named("fewshot.prototype", 1, {}), WIDTH, CLASSES).eval(), table, pools, shape, count, 0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
