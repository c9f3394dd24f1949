"""Options of ``feedback.analyse``; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from engram.backbone.contract import ExperimentConfig, Flag, Input, Metric, OptionsOf, Registered, Scalar
from engram.backbone.data.corruptions.options import Occlusion, Published, Severity
from engram.backbone.errors import must


def _accuracy(pictures: str, *, primary: bool = False) -> Metric:
    of = f"{pictures}/accuracy"
    return Metric(name=f"test/{of}", split="test", of=of, unit="fraction", direction="max", primary=primary)


def _drop(of: str) -> tuple[Metric, ...]:
    """Accuracy that is lost, and half its 95 % interval."""
    named = {"split": "test", "unit": "points", "optional": True}
    return (
        Metric(name=f"test/{of}", of=of, direction="max", **named),
        Metric(name=f"test/{of}/ci95", of=f"{of}/ci95", direction="min", **named),
    )


METRICS = (
    _accuracy("corrupt", primary=True),
    _accuracy("clean"),
    *_drop("clean_drop_without"),
    *_drop("clean_drop_exchanged"),
    *_drop("corrupt_drop_without"),
    *_drop("corrupt_drop_exchanged"),
    Metric(name="aligned", unit="", direction="max", optional=True, bounds=(None, 1.0)),
    Metric(name="aligned/gain", unit="", direction="max", optional=True),
    Metric(name="decoded", unit="", direction="max", optional=True, bounds=(None, 1.0)),
    Metric(name="decoded/gain", unit="", direction="max", optional=True),
    Metric(name="decoded/gain/ci95", unit="", direction="min", optional=True, bounds=(0.0, None)),
    Metric(name="residual", unit="", direction="min", optional=True, bounds=(0.0, 2.0)),
    Metric(name="images", unit="count", direction="max"),
)


@dataclass(frozen=True, kw_only=True)
class AnalyseConfig(ExperimentConfig):
    """Look inside a trained network with feedback, or with steps of any other kind, on clean and corrupted pictures.

    Connections are switched off one by one and all together, in each step and in all, or carry what they carry for
    another picture; stages are compared with those of the same pictures clean; what is hidden is decoded from them; and
    how much they change from step to step is measured. Nothing is trained but linear decoders, on training images, and
    nothing is chosen on test images.
    """

    metrics: ClassVar[tuple[Metric, ...]] = METRICS

    from_trial: Annotated[str | None, Flag("from"), Input("trained")] = None
    """The trained trial: its id, the beginning of it, its folder, or models:/NAME@ALIAS."""
    dataset: Annotated[str, Registered("datasets", training=False)] | None = None
    """What to look at; by default what the trial was trained on."""
    dataset_options: Annotated[Mapping[str, Scalar], OptionsOf("dataset")] = field(default_factory=dict)
    """Options of the dataset."""
    images: Annotated[int, Ge(16)] = 1000
    """Test images to look at, chosen by the seed (all of them when there are fewer)."""
    training_images: Annotated[int, Ge(16)] = 1000
    """Training images that decoders of what is hidden are fitted to, chosen by the seed."""
    corruptions: tuple[Literal[Published, Occlusion], ...] = ("gaussian-noise", "gaussian-blur", "blobs")
    """What is done to test images, one after another: kinds of corruption as the data set corrupted:NAME has them."""
    severity: Severity = 3
    """How much of it, from 1 to 5."""

    def problems(self) -> list[str]:
        found = []
        if self.from_trial is None:
            step = "Train one with: engram run backbone.train --adapter feedback.gated"
            found.append(must("--from", "a trained trial", "nothing", step))
        if not self.corruptions:
            found.append(must("--corruptions", "at least one", "none", "Name some: gaussian-noise,blobs"))
        if len(set(self.corruptions)) < len(self.corruptions):
            found.append(must("--corruptions", "named once each", ",".join(self.corruptions), "Leave out the others."))
        return list(map(str, found))
