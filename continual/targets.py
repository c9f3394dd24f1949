"""Published figures this package is held to: ``engram reproduce continual/...``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from engram.backbone.contract import Present, Scalar, Target

SEEDS = (0, 1, 2, 3, 4)
_VAN_DE_VEN = "van de Ven and Tolias 2018 (arXiv 1809.10635), table 3"
_THREE_TYPES = "van de Ven, Tuytelaars and Tolias 2022 (Nature Machine Intelligence 4), table 2"
_BUZZEGA = "Buzzega et al. 2020 (arXiv 2004.07211), tables of the published code"
_MAMMOTH = "scripts/reproduce.json of Mammoth, the code behind them, for the same command"
_DATES = {_VAN_DE_VEN: "2018", _THREE_TYPES: "2022", _BUZZEGA: "2020"}
_PROPOSED = {_VAN_DE_VEN: ("dgr-distill",), _THREE_TYPES: ("bi-r",), _BUZZEGA: ("der", "derpp")}
"""What the authors of a table propose themselves; all else there is what it is measured against, and two-sided."""


def _origin(source: str, method: str) -> dict[str, Any]:
    """What a target says of where its figure comes from."""
    return {"source": source, "date": _DATES[source], "exact": method not in _PROPOSED[source]}


_SPLIT: dict[str, Scalar] = {
    "dataset": "mnist",
    "backbone.units": 400,
    "normalise": False,
    "tasks": 5,
    "iterations": 2000,
    "batch_size": 128,
    "lr": 1e-3,
}


def _split(scenario: str, name: str, figure: tuple[float, float | None], source: str, **options: Scalar) -> Target:
    """Split-MNIST; ``figure`` is per cent and standard error over the 20 seeds there, None where we do not know it.

    Their code leaves out the last, shorter batch of every pass; ours trains on it, in the same number of steps. That of
    Mammoth, Zenke and Avalanche trains on it as well.

    Errors of ``none`` and ``joint`` are those of the same rows in the table of 2022, which has the same protocol.

    The tolerance is two standard deviations of the difference between their mean of 20 and ours of 5, at least half a
    point; one point where the error is not known.
    """
    percent, error = figure
    minutes = float(options.pop("minutes", 1.5) or 0)
    spread = 1.0 if error is None else 2 * error * 20**0.5 * (1 / 20 + 1 / len(SEEDS)) ** 0.5
    return Target(
        name=f"continual/split-mnist/{scenario}-{name}",
        experiment="continual.stream",
        options={**_SPLIT, "scenario": scenario, **options},
        metric="test/average_accuracy",
        value=round(percent / 100, 4),
        tolerance=round(max(0.5, spread) / 100, 4),
        seeds=SEEDS,
        protocol="van de Ven: 784-400-400, 5 tasks of 2 digits in random order, 2,000 steps of 128 each, Adam 1e-3",
        minutes=minutes * len(SEEDS),
        **_origin(source, name),
    )


def _three(
    name: str,
    figures: Sequence[tuple[float, float | None]],
    source: str,
    each: Sequence[Mapping[str, Scalar]] = (),
    **same: Any,
) -> tuple[Target, ...]:
    """One method in the task-, domain- and class-incremental scenario; ``each`` holds the options that differ.

    Where classes are new, the code of 2018 offers the outputs of those met so far, that of 2022 all of them.
    """
    scenarios = ("task", "domain", "class")
    differing = each or ({}, {}, {})
    head = {"class": {"head": "growing"}} if source is _VAN_DE_VEN else {}
    return tuple(
        _split(scenario, name, figure, source, **{**same, **own, **head.get(scenario, {})})
        for scenario, figure, own in zip(scenarios, figures, differing, strict=True)
    )


def _si(c: float) -> Mapping[str, Scalar]:
    return {"strategies": "si", "strategies.si.c": c, "strategies.si.gradient": "total", "strategies.si.relu": False}


def _ewc(strength: float) -> Mapping[str, Scalar]:
    return {"strategies": "ewc", "strategies.ewc.strength": strength}


_KEPT: Mapping[str, Scalar] = {"strategies.er.selection": "random", "strategies.er.weighting": "tasks"}
_LWF: Mapping[str, Scalar] = {"strategies": "lwf", "strategies.lwf.scale": "outputs"}
_SOFT: Mapping[str, Scalar] = {"strategies.dgr.targets": "soft", "strategies.dgr.scale": "outputs"}
_THREE = (
    *_three("none", ((85.15, 0.99), (57.33, 1.66), (19.90, 0.02)), _VAN_DE_VEN, strategies="finetune"),
    *_three("joint", ((99.64, 0.03), (98.41, 0.05), (97.93, 0.04)), _VAN_DE_VEN, strategies="joint"),
    *_three("si", ((99.14, 0.11), (63.77, 1.18), (20.04, 0.08)), _VAN_DE_VEN, (_si(10), _si(50_000), _si(5000))),
    *_three("ewc", ((99.06, 0.15), (63.03, 1.58), (20.64, 0.52)), _THREE_TYPES, (_ewc(1e5), _ewc(1e10), _ewc(1e9))),
    *_three("lwf", ((99.60, 0.03), (71.02, 1.26), (24.17, 0.51)), _VAN_DE_VEN, (_LWF,) * 3),
    *_three("dgr", ((99.47, 0.03), (95.74, 0.23), (91.24, 0.33)), _VAN_DE_VEN, strategies="dgr", minutes=5),
    *_three(
        "dgr-distill",
        ((99.59, None), (96.94, None), (91.84, 0.27)),
        _VAN_DE_VEN,
        (_SOFT,) * 3,
        strategies="dgr",
        minutes=5,
    ),
    _split("task", "xdg", (98.74, 0.31), _VAN_DE_VEN, **{"strategies": "xdg", "strategies.xdg.share": 0.9}),
    _split(
        "class",
        "bi-r",
        (94.41, None),
        _THREE_TYPES,
        minutes=6,
        **{"strategies": "bi-r", "strategies.bi-r.scale": "none"},
    ),
    _split("class", "er", (88.79, None), _THREE_TYPES, **{"strategies": "er", "buffer": 1000, **_KEPT}),
    _split("class", "agem", (65.10, 3.64), _THREE_TYPES, strategies="agem", buffer=1000),
)

_ONE_PASS: dict[str, Scalar] = {
    "dataset": "mnist",
    "backbone.units": 100,
    "backbone.initialisation": "glorot",
    "normalise": False,
    "epochs": 1,
    "optimizer": "sgd",
}


_EXEMPLARS = (
    "the code of the time drew a batch of exemplars per step; ours adds them to the training images, as the paper and "
    "later versions do, and gains with the buffer. Without them in training ours is as flat (68.7, 70.7; seed 0). Its "
    "authors have said since that the iCaRL of their code then had a bug (Mammoth's issue 10, 2021)"
)


_COPIES = {strategy: {f"strategies.{strategy}.copies": True} for strategy in ("er", "der", "derpp")}
"""The published code offers every image to its buffer in every pass."""


def _one_pass(kind: str, strategy: str, buffer: int, percent: float, lr: float, **own: Scalar) -> Target:
    """A row of the one-pass tables; the deviations over their ten runs are not known to us, so the tolerance is ours.

    Seeds of A-GEM differ by 25 points, those of the others by five.
    """
    tolerance = 0.06 if strategy == "agem" else 0.02
    split: Mapping[str, Scalar] = {"scenario": "class", "tasks": 5, "class_order": "sorted", "batch_size": 10}
    permuted: Mapping[str, Scalar] = {"scenario": "permuted", "tasks": 20, "batch_size": 128}
    about = "5 tasks of 2 digits, batch 10" if kind == "split" else "20 permutations, batch 128"
    return Target(
        name=f"continual/one-pass-{kind}-mnist/{strategy}-{buffer}",
        experiment="continual.stream",
        options={
            **_ONE_PASS,
            **(split if kind == "split" else permuted),
            "strategies": strategy,
            "buffer": buffer,
            "lr": lr,
            **_COPIES.get(strategy, {}),
            **{f"strategies.{strategy}.{key}": value for key, value in own.items()},
        },
        metric="test/average_accuracy",
        value=round(percent / 100, 4),
        tolerance=tolerance,
        seeds=SEEDS,
        protocol=f"Mammoth: 784-100-100, {about}, one pass, SGD without momentum; tolerance ours",
        minutes=(0.5 if kind == "split" else 1.5) * len(SEEDS),
        **_origin(_BUZZEGA, strategy),
        note=_EXEMPLARS if strategy == "icarl" else "",
    )


_ROWS = (
    _one_pass("split", "er", 200, 80.43, 0.01, replay_batch=10),
    _one_pass("split", "er", 500, 86.12, 0.1, replay_batch=10),
    _one_pass("split", "er", 5120, 93.40, 0.1, replay_batch=10),
    _one_pass("split", "der", 200, 84.55, 0.03, replay_batch=10, alpha=0.2),
    _one_pass("split", "der", 500, 90.54, 0.03, replay_batch=128, alpha=1.0),
    _one_pass("split", "der", 5120, 94.90, 0.1, replay_batch=128, alpha=0.5),
    _one_pass("split", "derpp", 200, 85.61, 0.03, replay_batch=128, alpha=0.2, beta=1.0),
    _one_pass("split", "derpp", 500, 91.00, 0.03, replay_batch=10, alpha=1.0, beta=0.5),
    _one_pass("split", "derpp", 5120, 95.30, 0.1, replay_batch=64, alpha=0.2, beta=0.5),
    _one_pass("split", "icarl", 200, 70.51, 0.1, scale="mean"),
    _one_pass("split", "icarl", 500, 70.10, 0.1, scale="mean"),
    _one_pass("split", "icarl", 5120, 70.60, 0.1, scale="mean"),
    _one_pass("split", "agem", 200, 45.72, 0.1, replay_batch=128),
    _one_pass("split", "agem", 500, 46.66, 0.1, replay_batch=128),
    _one_pass("split", "agem", 5120, 54.24, 0.1, replay_batch=128),
    _one_pass("permuted", "er", 200, 72.37, 0.2, replay_batch=128),
    _one_pass("permuted", "er", 500, 80.60, 0.2, replay_batch=128),
    _one_pass("permuted", "er", 5120, 89.90, 0.2, replay_batch=128),
    _one_pass("permuted", "der", 200, 81.74, 0.2, replay_batch=128, alpha=1.0),
    _one_pass("permuted", "der", 500, 87.29, 0.2, replay_batch=128, alpha=1.0),
    _one_pass("permuted", "der", 5120, 91.66, 0.2, replay_batch=128, alpha=0.5),
    _one_pass("permuted", "derpp", 200, 83.58, 0.1, replay_batch=128, alpha=1.0, beta=1.0),
    _one_pass("permuted", "derpp", 500, 88.21, 0.2, replay_batch=128, alpha=1.0, beta=0.5),
    _one_pass("permuted", "derpp", 5120, 92.26, 0.2, replay_batch=128, alpha=0.5, beta=1.0),
)


_ONE_SEED = (
    "the published run is one seed, and how much is forgotten is a matter of the seed: five of ours end at 0.5068, "
    "0.5415, 0.5348, 0.6040 and 0.4955 (bf16 on a GPU)"
)


def _zenke(name: str, tasks: int, value: float, tolerance: float, minutes: float, **own: Scalar) -> Target:
    return Target(
        name=f"continual/permuted-mnist/{name}-{tasks}",
        experiment="continual.stream",
        options={
            "dataset": "mnist",
            "scenario": "permuted",
            "tasks": tasks,
            "backbone.units": 2000,
            "backbone.initialisation": "glorot",  # Keras's own, which the code uses
            "normalise": False,
            "epochs": 20,
            "batch_size": 256,
            "lr": 1e-3,
            "precision": "auto",
            **{key.replace("__", "."): value for key, value in own.items()},
        },
        metric="test/average_accuracy",
        value=value,
        tolerance=tolerance,
        seeds=SEEDS,
        protocol=f"Zenke: 784-2000-2000, {tasks} permutations, 20 passes each, batch 256, Adam 1e-3 kept over tasks",
        source="the stored run (one seed) beside the code of Zenke, Poole and Ganguli 2017 (arXiv 1703.04200)",
        date="2017",
        minutes=minutes * len(SEEDS),
        exact=name == "none",
    )


def _pictures(
    strategy: str, buffer: int, percent: float, lr: float, present: float | None = None, **own: Scalar
) -> Target:
    """A row of the split of CIFAR-10; the tolerance is the deviation over seeds that is known for two of the rows.

    ``present``: what the code's maintainers report today, where they report the row at all, in per cent.
    """
    return Target(
        name=f"continual/split-cifar10/{strategy}-{buffer}",
        experiment="continual.stream",
        options={
            "dataset": "cifar10",
            "scenario": "class",
            "tasks": 5,
            "class_order": "sorted",
            "backbone": "resnet18",
            "backbone.pooling": "stride",
            "epochs": 50,
            "batch_size": 32,
            "optimizer": "sgd",
            "lr": lr,
            "flip": "random",
            "translate": 4,
            "border": "black",
            "precision": "auto",
            "strategies": strategy,
            "buffer": buffer,
            **_COPIES.get(strategy, {}),
            **{f"strategies.{strategy}.{key}": value for key, value in own.items()},
        },
        metric="test/average_accuracy",
        value=round(percent / 100, 4),
        tolerance=0.02,
        seeds=SEEDS,
        protocol="Mammoth: ResNet-18, 5 tasks of 2 classes, 50 passes each, batch 32, SGD without momentum",
        **_origin(_BUZZEGA, strategy),
        present=None if present is None else Present(value=round(present / 100, 4), source=_MAMMOTH, date="2024"),
        minutes=(4 if strategy == "er" else 8) * len(SEEDS),
        needs_gpu=True,
    )


_PICTURES = (
    _pictures("er", 200, 44.79, 0.1),
    _pictures("er", 500, 57.74, 0.1, present=63.39),
    _pictures("derpp", 200, 64.88, 0.03, alpha=0.1, beta=0.5),
    _pictures("derpp", 500, 72.70, 0.03, alpha=0.2, beta=0.5),
)

_SI: dict[str, Scalar] = {"strategies": "si", "strategies__si__c": 0.1, "strategies__si__xi": 0.1}
_PERMUTED = (
    _zenke("si", 3, 0.9827, 0.005, 35, **_SI),
    _zenke("si", 10, 0.9694, 0.005, 110, **_SI),
    replace(_zenke("none", 10, 0.5741, 0.05, 100, strategies="finetune"), note=_ONE_SEED),
)

TARGETS: tuple[Target, ...] = (*_THREE, *_ROWS, *_PERMUTED, *_PICTURES)
