"""Experiment ``feedback.clutter``: train one network on one condition, and test whether it finds all digits."""

from __future__ import annotations

import torch

from engram.backbone.contract import Figure, Pictures, Result, Row, Services
from engram.backbone.data.columns import PRESENT
from engram.backbone.data.load import Data
from engram.backbone.data.sets import Split
from engram.backbone.experiments.train import Train
from engram.backbone.measures.anytime import figure
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.layout import arranged
from engram.backbone.objectives.columns import columns_of
from engram.feedback.clutter.configs import ClutterConfig
from engram.feedback.clutter.measure import DEVIATIONS, look

SHOWN = 12
"""Test images that a trial keeps."""


class Clutter(Train):
    """`engram.backbone.experiments.train.Train`, scored by whether the n strongest outputs are the n digits."""

    def __init__(self, config: ClutterConfig, services: Services) -> None:
        super().__init__(config, services)
        self.config: ClutterConfig = config

    def load(self) -> Data:
        data = super().load()
        columns_of(data.test, (PRESENT,), "cpu")
        return data

    def scores(self, model: Classifier, split: Split) -> dict[str, float]:
        last = look(model, split, self.services.device, say=self._silent).rows()[-1]
        return {name: float(last[name] or 0) for name in ("accuracy", "loss")}

    def measure(self, model: Classifier, data: Data) -> Result:
        """Accuracy after every step, on the test images as they are and with noise."""
        device, shown = self.services.device, 1 + len(DEVIATIONS)
        rows, noisy = list[Row](), list[Row]()
        for number, deviation in enumerate((0.0, *DEVIATIONS)):

            def say(images: int, number: int = number) -> None:
                self.services.progress(number + images / len(data.test), shown, "testing")

            each = look(model, data.test, device, deviation, say).rows()
            rows = rows or each
            noisy.append({"deviation": deviation, **_by_step(each)})
        last = {name: float(value or 0) for name, value in rows[-1].items()}
        ends = [float(row[f"accuracy_at_{len(rows)}"] or 0) for row in noisy[1:]]
        return Result(
            metrics={
                "test/accuracy": last["accuracy"],
                "test/loss": last["loss"],
                "test/found": last["found"],
                "test/noisy_accuracy": sum(ends) / len(ends),
            },
            tables={"accuracy_vs_steps": rows, "noise": noisy},
            figures={
                "accuracy_vs_steps": figure(rows, "images with all digits found"),
                "noise": _noise(noisy),
                "images": self.shown(model, data),
            },
        )

    @torch.inference_mode()
    def shown(self, model: Classifier, data: Data) -> Pictures:
        """The first test images, each with what is in it and what was found."""
        present = columns_of(data.test, (PRESENT,), "cpu")[PRESENT]
        images, _, places = next(data.test.batches(torch.arange(min(SHOWN, len(data.test))), SHOWN, "cpu"))
        logits = model(arranged(images.to(self.services.device), model.backbone)).cpu()
        order = logits.argsort(dim=-1, descending=True, stable=True)
        captions = []
        for row, ranks in zip(present[places], order, strict=True):
            held, found = (
                " ".join(data.classes[label] for label in sorted(labels.tolist()))
                for labels in (row.nonzero()[:, 0], ranks[: int(row.sum())])
            )
            captions.append(f"{held}; found {found}")
        return Pictures(title="What is in an image, and what was found", pictures=list(images[:, 0]), captions=captions)

    @staticmethod
    def _silent(images: int) -> None:
        return


def _by_step(rows: list[Row]) -> Row:
    return {f"accuracy_at_{row['steps']}": row["accuracy"] for row in rows}


def _noise(rows: list[Row]) -> Figure:
    steps = [name for name in rows[0] if name != "deviation"]
    return Figure(
        title="Accuracy under noise",
        x_label="standard deviation of the noise, where white is 1",
        y_label="images with all digits found",
        series={
            f"step {name.rpartition('_')[2]}": [(float(row["deviation"] or 0), float(row[name] or 0)) for row in rows]
            for name in steps
        },
    )
