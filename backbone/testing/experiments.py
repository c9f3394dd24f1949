"""What every experiment must keep to."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import FIGURES, AnyFigure, ExperimentConfig, Pictures
from engram.backbone.seeding import random_state, set_random_state
from engram.backbone.testing.case import require
from engram.backbone.testing.workshop import Ran, Told, Workshop

TRAIN, EVALUATE = "backbone.train", "backbone.evaluate"
PNG = b"\x89PNG\r\n\x1a\n"


def check_experiment(shop: Workshop, experiment: str, chosen: Mapping[str, Any]) -> None:
    """Run it once as a whole, and once from a state that another process could have left."""
    resumes(shop, check_run(shop, experiment, chosen))


def check_run(shop: Workshop, experiment: str, chosen: Mapping[str, Any]) -> Ran:
    """A run, on a network that is trained before where the experiment cannot be without one."""
    if (option := shop.cannot_be_without(experiment)) is not None:
        chosen = {**chosen, option: str(shop.run(TRAIN).folder)}
    ran = shop.run(experiment, **chosen)
    same_for_seeds(ran.config)
    reports(ran)
    return ran


def same_for_seeds(config: ExperimentConfig) -> None:
    """What it refuses, and whether it requires other trials, is so for every seed, of which plans ask one alone."""
    other = replace(config, seed=config.seed + 1)
    require(other.problems() == config.problems(), "a configuration has the same problems with another seed")
    require(bool(other.requires()) == bool(config.requires()), "trials are required with every seed, or with none")


def check_from(shop: Workshop, experiment: str, trained: Mapping[str, Any]) -> None:
    """An experiment that is given the network of a training."""
    option = shop.starts_from(experiment)
    assert option is not None
    before = shop.run(TRAIN, **trained)
    ran = shop.run(experiment, **{option: str(before.folder)})
    reports(ran)
    if experiment == EVALUATE:
        scores = [each.result.metrics["test/accuracy"] for each in (before, ran)]
        require(scores[0] == scores[1], f"what is saved scores {scores[0]}, as it did in training; got {scores[1]}")


def reports(ran: Ran) -> None:
    """It reports what it declares, in plain values."""
    metrics, result = ran.config.metrics, ran.result
    primary = [metric.name for metric in metrics if metric.primary]
    require(any(name in result.metrics for name in primary), f"a primary metric is reported, of {', '.join(primary)}")
    for metric in metrics:
        require(metric.optional or metric.name in result.metrics, f"{metric.name} is declared, and must be reported")
        low, high = metric.span
        value = result.metrics.get(metric.name, low or 0.0)
        inside = (low is None or low <= value) and (high is None or value <= high)
        require(inside, f"{metric.name} lies in its bounds; got {value}")
    for name, value in (*result.metrics.items(), *ran.services.ledger.items()):
        require(math.isfinite(value), f"{name} is finite; got {value}")
    for tables in (result.tables.items(), ran.services.tables):
        for title, rows in tables:
            _require_json([dict(row) for row in rows], f"table {title!r}")
    for name, figure in result.figures.items():
        _require_figure(name, figure)
    for name, path in result.artifacts.items():
        file = (ran.folder / path).resolve()
        require(file.is_relative_to(ran.folder.resolve()) and file.exists(), f"artifact {name} is a file of the trial")


def _require_json(value: Any, what: str) -> None:
    try:
        json.dumps(_unpacked(value))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{what} is of plain numbers, texts and lists: {error}") from None


def _unpacked(value: Any) -> Any:
    """Numbers of NumPy and torch as Python has them: the runner takes these too."""
    if isinstance(value, Mapping):
        return {str(key): _unpacked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_unpacked(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def _require_figure(name: str, figure: AnyFigure) -> None:
    require(FIGURES.get(figure.kind) is type(figure), f"figure {name} is of a kind that can be drawn")
    if isinstance(figure, Pictures):
        require(len(figure.captions) == len(figure.pictures), f"figure {name} has a caption for every picture")
        for picture in figure.pictures:
            known = isinstance(picture, bytes) and picture.startswith(PNG)
            require(known or torch.as_tensor(picture).dtype == torch.uint8, f"figure {name}: PNG, or pixels of uint8")
        figure = replace(figure, pictures=())
    _require_json(asdict(figure), f"figure {name}")


def resumes(shop: Workshop, whole: Ran) -> None:
    """Gone on with in the middle, from a state on disk, it comes to the same to the last bit."""
    experiment, config = whole.experiment, whole.config
    services = shop.services(whole.services.inputs)
    made = shop.begun(experiment, config, services)
    state = made.start()
    for _ in range(min(max(whole.steps // 2, 1), whole.steps - 1)):
        made.step(state)
    saved = plain_state(made.state_dict(state), "the state of an experiment")
    random = random_state()
    again = shop.begun(experiment, config, services)
    fresh = again.start()
    again.load_state_dict(fresh, saved)
    set_random_state(random)
    while again.step(fresh):
        pass
    result = again.finish(fresh)
    timed = {metric.name for metric in config.metrics if metric.timed}

    def logged(services: Told) -> dict[tuple[str, int], float]:
        return {key: value for key, value in services.ledger.items() if key[0] not in timed}

    for name, value in whole.result.metrics.items():
        same = name in timed or result.metrics.get(name) == value
        require(same, f"{name} is the same to the last bit after a resume; got {result.metrics.get(name)} for {value}")
    require(logged(services) == logged(whole.services), "what is logged is the same to the last bit after a resume")
    require(services.facts == whole.services.facts, "provenance states the same facts again")


def plain_state(state: Mapping[str, Any], what: str) -> dict[str, Any]:
    """A state as it comes back from disk, after a look at what it is made of."""
    todo: list[Any] = [state]
    while todo:
        value = todo.pop()
        if isinstance(value, Mapping):
            todo += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            todo += value
        else:
            plain = value is None or isinstance(value, Tensor | str | int | float | bool)
            require(plain, f"{what} holds tensors, numbers, strings and containers; got a {type(value).__name__}")
    file = io.BytesIO()
    torch.save(dict(state), file)
    file.seek(0)
    return torch.load(file, weights_only=True)
