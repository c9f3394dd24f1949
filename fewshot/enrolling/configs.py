"""Options of ``fewshot.enrol``; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from annotated_types import Ge, Gt, Lt

from engram.backbone.contract import NOTHING, Inputs, Metric, Registered
from engram.backbone.errors import must
from engram.backbone.experiments.configs import accuracy
from engram.fewshot.fixed_heads import without_classifier
from engram.fewshot.frozen_configs import FrozenConfig
from engram.fewshot.metrics import ci95, share

REJECT = 0.05

METRICS = (
    accuracy("test", primary=True),
    ci95("test", optional=False),
    Metric(
        name="test/known_rejected", split="test", of="known_rejected", unit="fraction", direction="min", optional=True
    ),
    share("test", "unknown_rejected"),
    Metric(name="classes", unit="count", direction="max"),
    Metric(name="images", unit="count", direction="max"),
)


@dataclass(frozen=True, kw_only=True)
class EnrolConfig(FrozenConfig):
    """Enrol new classes from a few pictures of each, and see which of the other pictures are told apart.

    The network is used as it is. Where the data set has a test part, that is asked and the pictures to enrol are
    training images; elsewhere all pictures beside those enrolled are asked. Of parts with classes of their own, and of
    classes that were dealt out when the network was trained, those of the test part are enrolled. Where writers are
    known, nobody who drew a picture to enrol is asked.
    """

    version: ClassVar[int] = 1
    metrics: ClassVar[tuple[Metric, ...]] = METRICS

    dataset: Annotated[str, Registered("datasets", training=False)] = "digits"
    """The pictures: folder:PATH, or see ``engram list datasets``. Beside --from that of the trial, unless another one
    is given."""
    shots: Annotated[int, Ge(1)] = 5
    """Pictures of each class to enrol, chosen by the seed."""
    reject: Annotated[float, Gt(0), Lt(1)] | None = None
    """Say "none of these" of pictures that are further from the nearest class mean than all but about this share of
    the enrolled ones, each left out in turn. By default 0.05; none with --shots 1, which tells no
    distances."""

    @classmethod
    def resolve(cls, given: Mapping[str, Any], inputs: Inputs = NOTHING) -> Self:
        values, trained = cls.frozen(given, inputs), inputs.get("trained", {})
        if "dataset" in trained and given.get("dataset", trained["dataset"]) == trained["dataset"]:
            values["dataset"] = trained["dataset"]
            values["dataset_options"] = {**trained.get("dataset_options", {}), **given.get("dataset_options", {})}
        if values.get("reject") is None:
            values["reject"] = REJECT if values.get("shots", cls.shots) > 1 else None
        return cls(**values)

    def problems(self) -> list[str]:
        found = super().problems()
        if self.reject is not None and self.shots == 1:
            step = "Leave it out, or enrol two pictures of each class."
            found.append(str(must("--reject", "left out with --shots 1, which tells no distances", self.reject, step)))
        return found + without_classifier("--head", self.head)
