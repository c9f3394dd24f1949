"""Simulated images per second, and the accuracy reached: our converted networks against SpikingJelly's.

Both sides get the same trained weights, the same calibration images (in one batch, so that SpikingJelly's running mean
of percentiles over batches is the percentile), the 99.9th percentile per channel and neurons that start at half their
threshold; SpikingJelly folds BatchNorm itself. Accuracies are those of what `snn.convert` does by default, which also
calibrates, and once (``same-recipe``) of exactly what SpikingJelly does. Two more of its recipes stand beside: the same
``per-layer``, and its local threshold balancing (``ltb``), which goes through the images many times in small batches,
as its thresholds grow a little with each. It runs step by step, as in its tutorial, and once more in multi-step mode.
The floor is T passes of the analog network, BatchNorm folded.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor, fx, nn

from engram.backbone.data.load import Data, load
from engram.backbone.data.sets import Split
from engram.backbone.errors import UserError, must
from engram.backbone.experiments.configs import TrainConfig
from engram.backbone.hardware import Machine, choose_precision
from engram.backbone.measures.anytime import accuracy_vs_steps
from engram.backbone.measures.scoring import score
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.folding import trace
from engram.backbone.nets.making import build
from engram.backbone.training.loop import Trainer
from engram.backbone.training.preparing import prepare
from engram.benchmarks.perf.harness import Row, interleaved
from engram.snn.conversion.convert import convert, lower

STEPS = 32
POINTS = (4, 8, 16, 32)
ROUNDS = 3
PERCENTILE = 99.9
CALIBRATION = 200  # torch.quantile, which SpikingJelly uses, takes 2**24 values at once: 512 images of vgg-small
BALANCING = {"batch": 50, "passes": 25}  # 100 updates: with 20 it reaches 0.68 at T = 32 where these give 0.87
PEER = "SpikingJelly 2.0"
PEER_BATCH = 250  # where it is fastest on these images; its tutorial takes 50

OTHERS: Mapping[Literal["per-layer", "ltb"], str] = {"per-layer": "per layer", "ltb": "local threshold balancing"}


@dataclass(frozen=True)
class Case:
    """A network, its data, and how much of each: ``timed`` images in one timed run, ``scored`` for the accuracy."""

    net: str
    dataset: str
    epochs: int
    train: int
    timed: int
    scored: int


CASES = (
    Case("lenet5", "mnist", epochs=1, train=60_000, timed=500, scored=1000),
    Case("vgg-small", "cifar10", epochs=3, train=60_000, timed=250, scored=1000),
)
WITHOUT_MNIST = Case("lenet5", "digits", epochs=40, train=60_000, timed=200, scored=1000)


class Peer:
    """SpikingJelly's converted network.

    Args:
        model: the trained analog classifier.
        calibration: [N, C, H, W] normalised images.
        recipe: percentiles per channel or layer, or its local threshold balancing.

    Raises:
        UserError: SpikingJelly is not installed.
    """

    def __init__(
        self,
        model: Classifier,
        calibration: Tensor,
        recipe: Literal["per-channel", "per-layer", "ltb"] = "per-channel",
    ) -> None:
        ann2snn, self.functional = spikingjelly()
        if recipe == "ltb":
            batches = [*calibration.split(BALANCING["batch"])] * BALANCING["passes"]
            made = ann2snn.LocalThresholdBalancingRecipe(batches, fuse_flag=True)
        else:
            wise = recipe == "per-channel"
            made = ann2snn.RateCodingRecipe(
                [calibration], mode=f"{PERCENTILE}%", channel_wise=wise, half_threshold=True, fuse_flag=True
            )
        with redirect_stderr(io.StringIO()):  # a progress bar over the batches
            self.net: nn.Module = ann2snn.Converter(made).convert(analog(model)).eval()

    @torch.inference_mode()
    def logits(self, x: Tensor, steps: int) -> Tensor:
        """x: [B, C, H, W] normalised -> the mean logits after each step, [steps, B, classes], step by step."""
        self.functional.set_step_mode(self.net, "s")
        self.functional.reset_net(self.net)
        total, after = torch.zeros(()), []
        for step in range(steps):
            total = total + self.net(x)
            after.append(total / (step + 1))
        return torch.stack(after)

    @torch.inference_mode()
    def multi_step(self, x: Tensor, steps: int) -> Tensor:
        """x: [B, C, H, W] normalised -> the mean logits after the last step, [B, classes], layer by layer."""
        self.functional.set_step_mode(self.net, "m")
        self.functional.reset_net(self.net)
        return self.net(x.expand(steps, *x.shape)).mean(0)


def spikingjelly() -> tuple[ModuleType, ModuleType]:
    """Its converter and its functions on whole networks; imported here, since only this script needs it.

    Raises:
        UserError: it is not installed.
    """
    try:
        names = ("ann2snn", "functional")
        converter, functional = (import_module(f"spikingjelly.activation_based.{name}") for name in names)
    except ModuleNotFoundError as error:
        raise must(
            "SpikingJelly", "installed for this comparison", f"no module {error.name!r}", "Run: make perf"
        ) from error
    return converter, functional


def analog(model: Classifier) -> nn.Module:
    """What SpikingJelly can trace: plain layers only, BatchNorm as trained; normalised images -> logits."""
    return nn.Sequential(trace(model.backbone), model.head).eval()


def trained(case: Case, data: Data) -> Classifier:
    """Briefly trained with the recipe users get, without the running average, which so few steps would not warm up."""
    torch.manual_seed(0)
    model = build(case.net, {}, data.in_shape, len(data.classes), data.mean, data.std)
    config = TrainConfig.resolve({"dataset": case.dataset, "backbone": case.net, "epochs": case.epochs, "ema": 0.0})
    train = first(data.train, case.train)
    prepare(model, train, config.seed)
    trainer = Trainer(model, train, config, Machine("cpu", choose_precision("auto", "cpu")))
    while not trainer.done:
        trainer.advance()
    return trainer.scored_model.eval()


def first(split: Split, count: int) -> Split:
    """At most ``count`` images of a split, the same ones every time."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    return split.select(order[:count])


def images(split: Split) -> Tensor:
    """All images of a small split, [N, C, H, W] uint8."""
    return next(split.batches(torch.arange(len(split)), len(split), "cpu"))[0]


def peer_accuracy(peer: Peer, model: Classifier, split: Split) -> dict[int, float]:
    """SpikingJelly's accuracy (fraction) after each of `POINTS`."""
    right = dict.fromkeys(POINTS, 0)
    for batch, labels, _ in split.batches(torch.arange(len(split)), PEER_BATCH, "cpu"):
        logits = peer.logits(model.normalise(batch), max(POINTS))
        for point in POINTS:
            right[point] += int((logits[point - 1].argmax(1) == labels).sum())
    return {point: count / len(split) for point, count in right.items()}


def compare(case: Case, data: Data) -> list[Row]:
    """All rows of one network: accuracies first, then speeds."""
    model = trained(case, data)
    calibration, validation = images(first(data.train, CALIBRATION)), data.validation
    if validation is None:
        raise RuntimeError("the data are loaded with a validation split")
    with torch.inference_mode():
        peer, *others = (Peer(model, model.normalise(calibration), recipe) for recipe in ("per-channel", *OTHERS))
    ours = convert(model, [calibration], len(calibration), steps=STEPS)
    same = convert(
        model,
        [calibration],
        len(calibration),
        steps=STEPS,
        threshold="percentile",
        percentile=PERCENTILE,
        calibration="none",
    )
    label = f"conversion/{case.net}/{data.name}"
    scored = first(validation, case.scored)
    timed = model.normalise(images(first(validation, case.timed)))
    accuracies = _accuracies(label, model, ours, same, [peer, *others], scored)
    return [*accuracies, *_speeds(label, ours, peer, lower(model.backbone), timed)]


def _accuracies(
    label: str, model: Classifier, ours: Classifier, same: Classifier, peers: list[Peer], scored: Split
) -> list[Row]:
    theirs, *others = (peer_accuracy(peer, model, scored) for peer in peers)
    before = score(model, scored, "cpu")["accuracy"]
    reached, plain = (our_accuracy(net, scored) for net in (ours, same))

    def row(ending: str, mine: float, against: float, name: str) -> Row:
        return Row(
            name=f"{label}/accuracy-{ending}",
            ours=mine,
            peer=against,
            peer_name=name,
            unit="fraction",
            higher_is_better=True,
            n=1,
        )

    last = POINTS[-1]
    return [
        *(row(f"T{t}", reached[t], theirs[t], PEER) for t in POINTS),
        row(f"T{last}-same-recipe", plain[last], theirs[last], PEER),
        row(f"T{last}-floor", reached[last], before, "the analog network"),
        *(
            row(f"T{t}-{recipe}", reached[t], found[t], f"{PEER}, {meaning}")
            for (recipe, meaning), found in zip(OTHERS.items(), others, strict=True)
            for t in POINTS
        ),
    ]


def our_accuracy(model: Classifier, split: Split) -> dict[int, float]:
    """Accuracy (fraction) of a converted network after each of `POINTS`."""
    curve = accuracy_vs_steps(model, split, POINTS, "cpu", batch_size=100)
    return {int(str(row["steps"])): float(str(row["accuracy"])) for row in curve}


def _speeds(label: str, ours: Classifier, peer: Peer, floor: fx.GraphModule, x: Tensor) -> list[Row]:
    """Interleaved with ours: SpikingJelly in both modes (images/s), and the floor (s)."""

    @torch.inference_mode()
    def simulate() -> None:
        ours.head(ours.backbone.forward_steps(x))  # type: ignore[operator]

    @torch.inference_mode()
    def passes() -> None:
        for _ in range(STEPS):
            ours.head(floor(x.contiguous(memory_format=torch.channels_last)))

    def step_by_step() -> None:
        for part in x.split(PEER_BATCH):
            peer.logits(part, STEPS)

    def multi_step() -> None:
        for part in x.split(PEER_BATCH):
            peer.multi_step(part, STEPS)

    def row(ending: str, work: Callable[[], object], name: str, unit: str) -> Row:
        mine, theirs = interleaved(simulate, work, ROUNDS)
        fast = unit == "images/s"
        values = (len(x) / mine, len(x) / theirs) if fast else (mine, theirs)
        return Row(
            name=f"{label}/{ending}",
            ours=values[0],
            peer=values[1],
            peer_name=name,
            unit=unit,
            higher_is_better=fast,
            n=ROUNDS,
        )

    return [
        row(f"simulation-T{STEPS}", step_by_step, f"{PEER}, step by step", "images/s"),
        row(f"simulation-T{STEPS}-multi-step", multi_step, f"{PEER}, multi-step mode", "images/s"),
        row(f"simulation-T{STEPS}-floor", passes, f"{STEPS} passes of the analog network", "s"),
    ]


def measure() -> list[Row]:
    """All cases whose data are there; LeNet-5 falls back on the embedded digits."""
    spikingjelly()  # before minutes of training
    rows = []
    for case in CASES:
        try:
            data = load(case.dataset, {}, root=Path(os.environ.get("ENGRAM_DATA", "data")))
        except UserError:
            if case.net != WITHOUT_MNIST.net:
                continue
            case, data = WITHOUT_MNIST, load(WITHOUT_MNIST.dataset, {}, root=Path())
        rows += compare(case, data)
    return rows
