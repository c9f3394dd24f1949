"""``backbone.evaluate``: score a trained network on any data, with the preprocessing it was trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from backbone.checkpoint import load_model
from backbone.contract import Result, Services
from backbone.data.load import load_for_scoring
from backbone.errors import must
from backbone.experiments.configs import EvaluateConfig
from backbone.metrics import score


class Evaluate:
    """One unit of work: load and score."""

    def __init__(self, config: EvaluateConfig, services: Services) -> None:
        self.config, self.services = config, services

    def start(self) -> dict[str, Any]:
        return {}

    def step(self, state: dict[str, Any]) -> bool:
        c, s = self.config, self.services
        model, about = load_model(s.inputs["trained"] / "model")
        dataset = about["dataset"] if c.dataset is None else c.dataset
        split, classes, fingerprint = load_for_scoring(
            dataset,
            about["dataset_options"] if c.dataset is None else c.dataset_options,
            root=s.data_root,
            download=s.download,
            split=c.split,
            validation=about["validation"],
            as_trained=dataset == about["dataset"],
        )
        s.provenance(data_sha256=fingerprint, dataset=dataset)
        _check_shape(about["in_shape"], split.in_shape)
        targets = _match(about["classes"], classes)
        state["scores"] = score(model.to(s.device), split, s.device, targets=targets)
        return False

    def finish(self, state: dict[str, Any]) -> Result:
        scores = state["scores"]
        return Result(metrics={name: scores[name] for name in ("accuracy", "loss", "images")})

    def state_dict(self, state: dict[str, Any]) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any], saved: Mapping[str, Any]) -> None:
        pass


def _check_shape(trained: Sequence[int], got: Sequence[int]) -> None:
    if list(trained) != list(got):
        step = f"Pass --dataset.size {trained[1]} and --dataset.channels {trained[0]}."
        raise must("the images", f"{'x'.join(map(str, trained))} like those trained on", "x".join(map(str, got)), step)


def _match(trained: Sequence[str], got: Sequence[str]) -> Tensor:
    """The trained class for each class of the data, [K] int64: by name, or by number where either has numbers only.

    Raises:
        UserError: a class of the data was not trained.
    """
    if set(got) <= set(trained):
        return torch.tensor([list(trained).index(name) for name in got])
    fits = len(got) <= len(trained) and not set(got) & set(trained)
    if fits and (_only_numbered(trained) or _only_numbered(got)):
        return torch.arange(len(got))
    unknown = next((name for name in got if name not in trained), got[-1])
    known = ", ".join(trained[:10]) + (", ..." if len(trained) > 10 else "")
    raise must("the classes", f"among those trained on ({known})", repr(unknown), "Score data with these classes.")


def _only_numbered(names: Sequence[str]) -> bool:
    """Whether a source without names for its classes made these up."""
    return list(names) == [str(number) for number in range(len(names))]
