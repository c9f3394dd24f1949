"""Options of ``fewshot.one-shot-runs``; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from annotated_types import Ge, Le

from engram.backbone.contract import NOTHING, Inputs, Metric, Registered
from engram.backbone.data.options import PictureOptions
from engram.backbone.errors import must
from engram.backbone.experiments.configs import accuracy
from engram.backbone.registry import Registry
from engram.fewshot.frozen_configs import FrozenConfig
from engram.fewshot.metrics import ci95

DATASET = "one-shot-runs"
BUILT = 400


@dataclass(frozen=True, kw_only=True)
class OneShotConfig(FrozenConfig):
    """Lake's one-shot classification: twenty new characters of one alphabet, drawn once by one writer, and a drawing of
    each by another writer to classify.

    The published runs come from ``--dataset one-shot-runs:PATH``. Of other drawings whose writers are known as many
    runs as wanted are built by the same rule. The accuracy is the mean over runs, with its 95 % interval.
    """

    version: ClassVar[int] = 1
    metrics: ClassVar[tuple[Metric, ...]] = (
        *(accuracy(split, primary=True, optional=True) for split in ("test", "validation")),
        *(ci95(split) for split in ("test", "validation")),
        Metric(name="runs", unit="count", direction="max"),
    )

    dataset: Annotated[str, Registered("datasets", training=False)] = "omniglot"
    """The published runs, one-shot-runs:PATH (a folder or a zip file), or what to build runs from. Beside --from that
    of the trial, unless another one is given; pictures are then made as large as there."""
    split: Literal["test", "validation"] = "test"
    """Which part runs are built from; its name is the first word of the score."""
    runs: Annotated[int, Ge(2), Le(100_000)] | None = None
    """Runs to build. None: 400, or all of those that are published."""

    @classmethod
    def resolve(cls, given: Mapping[str, Any], inputs: Inputs = NOTHING) -> Self:
        values, trained = cls.frozen(given, inputs), inputs.get("trained", {})
        if "dataset" in trained:
            values.setdefault("dataset", trained["dataset"])
            own = trained.get("dataset_options", {})
            if values["dataset"] != trained["dataset"]:
                own = {name: own[name] for name in ("size", "channels") if name in own and _pictures(values["dataset"])}
            values["dataset_options"] = {**own, **given.get("dataset_options", {})}
        if not cls._published(values.get("dataset", cls.dataset)) and values.get("runs") is None:
            values["runs"] = BUILT
        return cls(**values)

    @staticmethod
    def _published(dataset: str) -> bool:
        return dataset.partition(":")[0] == DATASET

    def problems(self) -> list[str]:
        found = super().problems()
        if self._published(self.dataset):
            for flag, value, usual in (("--runs", self.runs, None), ("--split", self.split, "test")):
                if value != usual:
                    found.append(str(must(flag, f"left out for {DATASET}:PATH", value, "Leave it out.")))
        return found


def _pictures(dataset: str) -> bool:
    """Whether a data set is made of pictures that can be resized."""
    options = Registry.discover().options("datasets", dataset)
    return options is not None and issubclass(options, PictureOptions)
