"""Conversion without the runner: any classifier and some images in, its spiking twin and what that costs out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from engram.backbone.contract import Figure, Row
from engram.backbone.data.given import Images, batches
from engram.backbone.errors import must
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.layout import layout
from engram.backbone.nets.parted import classifier
from engram.snn.conversion.convert import convert
from engram.snn.conversion.methods import Conversion
from engram.snn.conversion.preflight import Preflight, inspect
from engram.snn.conversion.scoring import Scoring, figure
from engram.snn.measures.costs import CAPTION

CALIBRATION_BATCH = 100


class Converted:
    """A spiking network beside the one it was made from.

    Args:
        analog: the network that was converted.
        module: its spiking twin: images as the first one takes them -> logits.
        steps: simulation steps T.
        preflight: what became of every layer, rows of ``layer``, ``kind`` and ``verdict``.
        calibration: the images that thresholds were chosen on, in batches.
    """

    caption = CAPTION
    """Goes with the table of `costs`."""

    def __init__(
        self, analog: Classifier, module: Classifier, steps: int, preflight: list[Row], calibration: list[Tensor]
    ) -> None:
        self.analog, self.module, self.steps = analog, module, steps
        self.preflight, self.calibration = preflight, calibration

    def curve(self, images: Images | None = None, labels: Any = None) -> list[Row]:
        """Accuracies, spikes and operations after 1, 2, 4, ... steps (`engram.snn.conversion.scoring.Scoring.curve`).

        Raises:
            UserError: images without labels.
        """
        return self._scored(images, labels, labelled=images is not None).curve()

    def costs(self, images: Images | None = None) -> list[Row]:
        """What one image costs in both networks, see `engram.snn.measures.costs.costs`."""
        return self._scored(images).costs()

    def layers(self, images: Images | None = None) -> list[Row]:
        """What became of every layer of neurons: thresholds, errors, firing rates, operations."""
        return [named(row) for row in self._scored(images).layers()]

    def figure(self, images: Images | None = None, labels: Any = None) -> Figure:
        """`curve` as a chart; without images, on how many calibration images both networks answer the same."""
        alike = "share of images answered alike"
        return figure(self.curve(images, labels), alike if images is None else "accuracy")

    def _scored(self, images: Images | None, labels: Any = None, labelled: bool = False) -> Scoring:
        return self._calibrated if images is None else self._run(images, labels, labelled)

    @cached_property
    def _calibrated(self) -> Scoring:
        return self._run(self.calibration, None, labelled=False)

    def _run(self, images: Images, labels: Any, labelled: bool) -> Scoring:
        scoring = Scoring(self.analog, self.module, self.steps)
        device = self.module.normalise.mean.device
        for x, y in batches(images, labels, scoring.chunk):
            if labelled and y is None:
                raise must(
                    "labels", "given with the images", "none", "Give accuracy(images, labels), or batches of both."
                )
            for at in range(0, len(x), scoring.chunk):
                chunk = slice(at, at + scoring.chunk)
                normalised = self.module.normalise(x[chunk].to(device))
                scoring.add(normalised, None if y is None else y[chunk].to(device))
        return scoring


def converted(module: nn.Module, images: Images, how: Conversion, calibration_images: int) -> Converted:
    """Convert a classifier, which is left as it is.

    Args:
        module: images [N, C, H, W] -> logits [N, classes].
        images: as the network takes them, to choose thresholds on: a tensor or batches, labels beside them are ignored.
        how: the options of the conversion.
        calibration_images: how many of the images to look at, the first ones.

    Raises:
        UserError: a layer cannot be converted, or images are not what they must be.
        TrialError: what was converted computes something else.
    """
    calibration = list(_first(images, calibration_images))
    if not calibration:
        raise must("the calibration images", "at least one", 0, "Give images as the network takes them.")
    analog = classifier(module, calibration[0])
    found = inspect(analog.backbone, analog.head, how.hybrid)
    found = Preflight(tuple(replace(verdict, layer=_plain(verdict.layer)) for verdict in found.verdicts))
    found.require()
    analog.backbone.to(memory_format=layout(analog.backbone))  # type: ignore[call-overload]
    device = analog.normalise.mean.device
    calibration = [batch.to(device) for batch in calibration]
    spiking = convert(analog, calibration, sum(map(len, calibration)), **asdict(how))
    return Converted(analog, spiking, how.steps, found.rows, calibration)


def named(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row about a layer under the name that its owner gave the layer."""
    return {**row, "layer": _plain(str(row["layer"]))}


def _plain(layer: str) -> str:
    return "forward" if layer == "net" else layer.removeprefix("net.")


def _first(images: Images, most: int) -> Iterator[Tensor]:
    """Batches of the first ``most`` images."""
    for batch, _ in batches(images, size=CALIBRATION_BATCH):
        yield batch[:most]
        most -= len(batch)
        if most <= 0:
            return
