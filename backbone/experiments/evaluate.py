"""``backbone.evaluate``: score a trained network on any data, with the preprocessing it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backbone.checkpoint import load_model
from backbone.contract import Result, Services
from backbone.data.load import load_for_scoring
from backbone.errors import must
from backbone.experiments.configs import EvaluateConfig
from backbone.metrics import score


class Evaluate:
    """One unit of work: load, score, report accuracy over all and per class."""

    def __init__(self, config: EvaluateConfig, services: Services) -> None:
        self.config, self.services = config, services

    def start(self) -> dict[str, Any]:
        return {}

    def step(self, state: dict[str, Any]) -> bool:
        c, s = self.config, self.services
        model, about = load_model(s.inputs["trained"] / "model")
        same = c.dataset is None
        split, classes, fingerprint = load_for_scoring(
            about["dataset"] if c.dataset is None else c.dataset,
            about["dataset_options"] if same else c.dataset_options,
            root=s.data_root,
            download=s.download,
            split=c.split,
            validation=about["validation"],
        )
        s.provenance(data_sha256=fingerprint, dataset=about["dataset"] if c.dataset is None else c.dataset)
        _check_fit(about, split.in_shape, len(classes))
        state["scores"] = score(model.to(s.device), split, s.device)
        return False

    def finish(self, state: dict[str, Any]) -> Result:
        scores = state["scores"]
        return Result(metrics={name: scores[name] for name in ("accuracy", "loss", "images")})

    def state_dict(self, state: dict[str, Any]) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any], saved: Mapping[str, Any]) -> None:
        pass


def _check_fit(about: Mapping[str, Any], in_shape: tuple[int, int, int], classes: int) -> None:
    wanted = tuple(about["in_shape"])
    if in_shape != wanted:
        step = f"Pass --dataset.size {wanted[1]} and --dataset.channels {wanted[0]}."
        raise must(
            "the images", f"{'x'.join(map(str, wanted))} like those trained on", "x".join(map(str, in_shape)), step
        )
    if classes > len(about["classes"]):
        got = f"{classes} classes"
        raise must(
            "the labels", f"among the {len(about['classes'])} classes trained on", got, "Score data with these classes."
        )
