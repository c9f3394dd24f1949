"""Options of ``causal.concepts``; no torch here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Self

from engram.backbone.contract import NOTHING, Inputs, KnownData, Metric, Registered
from engram.backbone.data.known import CONCEPTS
from engram.backbone.errors import UserError, must
from engram.backbone.experiments.configs import TRAIN_METRICS, TrainConfig
from engram.backbone.objectives.asking import lacking

HEAD = "causal.concept-bottleneck"


def _share(of: str, **more: Any) -> Metric:
    return Metric(name=f"test/{of}", split="test", of=of, unit="fraction", direction="max", **more)


METRICS = (
    *TRAIN_METRICS,
    _share("concept_accuracy"),
    _share("corrected_accuracy"),
    Metric(name="test/leakage", split="test", of="leakage", unit="points", direction="min"),
    Metric(
        name="test/task_leakage",
        split="test",
        of="task_leakage",
        unit="",
        direction="min",
        bounds=(-1.0, 1.0),
    ),
    Metric(
        name="test/concept_leakage",
        split="test",
        of="concept_leakage",
        unit="",
        direction="min",
        optional=True,
        bounds=(-1.0, 1.0),
    ),
)


@dataclass(frozen=True, kw_only=True)
class ConceptsConfig(TrainConfig):
    """Train a concept bottleneck, correct its concepts on test images, and measure what leaks through them.

    The head has as many concepts as the data, unless it is told otherwise.
    """

    version: ClassVar[int] = 1
    metrics: ClassVar[tuple[Metric, ...]] = METRICS

    dataset: Annotated[str, Registered("datasets")] = "concept-shapes"
    """What to train on, with a column ``concepts``, or with those of --concepts. Beside --from that of the trial."""
    objective: Annotated[str, Registered("objectives")] = "concepts"
    """What is minimised: see ``engram list objectives``."""
    concepts: str | None = None
    """Columns of the data that are the concepts, with commas between; their values are 0 and 1, as those of a folder's
    metadata.csv may be that --dataset.columns reads. None: the data have a column ``concepts``."""

    @property
    def named(self) -> tuple[str, ...]:
        """The names of these columns."""
        return tuple(name.strip() for name in (self.concepts or "").split(",") if name.strip())

    @classmethod
    def resolve(cls, given: Mapping[str, Any], inputs: Inputs = NOTHING) -> Self:
        values = dict(given)
        if values.get("from_trial") is None and values.get("head") is None:
            values["head"] = HEAD
        return super().resolve(values, inputs)

    def data_problems(self, known: KnownData) -> list[str]:
        named = self.named
        rest = replace(known, columns={**known.columns, **({CONCEPTS: None} if named else {})})
        asked = [] if self.objective == type(self).objective else [CONCEPTS]  # which asks for it itself
        found = [*super().data_problems(rest), *map(str, lacking(asked, rest.columns))]
        return [*found, *(str(unknown_column(name, known.columns)) for name in named if name not in known.columns)]

    def problems(self) -> list[str]:
        found = super().problems()
        if self.concepts is not None and not self.named:
            step = "Name some columns: wing,beak"
            found.append(str(must("--concepts", "at least one name", repr(self.concepts), step)))
        if len(set(self.named)) < len(self.named):
            found.append(str(must("--concepts", "named once each", self.concepts, "Leave out the others.")))
        return found


def unknown_column(name: str, columns: Collection[str]) -> UserError:
    """The error for a name in --concepts that is no column of the data."""
    known = ", ".join(columns) or "none"
    return must("--concepts", "columns of the data", f"{name!r}; columns: {known}", "Ask for it: --dataset.columns.")
