"""A network's answers beside the distributions that the model of the data has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engram.backbone.contract import Bars, Figure, Row
from engram.backbone.data.columns import numbered
from engram.backbone.data.sets import Split
from engram.backbone.measures.scoring import shown
from engram.backbone.nets.classifier import Classifier
from engram.causal.heads.backdoor import Backdoor
from engram.causal.heads.gap import nwgm_gap
from engram.causal.scm.graphs import LABEL, SHAPE, SHAPES
from engram.causal.scm.model import Model, total_variation

SCALES = (0.3, 1.0, 3.0)
"""What the logits of each value of the confounder are multiplied by, to see how NWGM errs with their size."""


@dataclass(frozen=True)
class Answers:
    """What a network makes of every picture: ``probabilities [N, K]``, and ``gaps [scales, N]`` of NWGM, if any."""

    probabilities: np.ndarray
    gaps: np.ndarray | None


@torch.inference_mode()
def answers(model: Classifier, split: Split, device: str) -> Answers:
    """Show a network every picture of a split, in fp32 and in evaluation mode."""
    model.eval()
    found, gaps = list[Tensor](), list[Tensor]()
    for images, *_ in shown(model, split, device):
        features = model.backbone(model.normalise(images))
        found.append(model.head(features).float().softmax(-1).double().cpu())
        if isinstance(head := model.head, Backdoor):
            logits = head.given_value(features)
            gaps.append(torch.stack([nwgm_gap(scale * logits, head.prior) for scale in SCALES]).double().cpu())
    return Answers(torch.cat(found).numpy(), torch.cat(gaps, 1).numpy() if gaps else None)


class Comparison:
    """Answers to test pictures, by the shape in them, beside P(y | do(x)) and P(y | x)."""

    def __init__(self, found: Answers, split: Split, model: Model) -> None:
        shapes, names = numbered(split.columns[SHAPE])
        numbers = np.array([SHAPES.index(name) for name in names])[shapes.numpy()]
        each = [found.probabilities[numbers == shape] for shape in range(len(SHAPES))]
        self.gaps = found.gaps
        self.estimated = np.stack([rows.mean(0) for rows in each])
        self.do, self.observed = (
            np.stack([ask(LABEL, {SHAPE: shape}) for shape in range(len(SHAPES))])
            for ask in (model.interventional, model.observational)
        )
        self.of_pictures = np.array(
            [total_variation(rows, truth).mean() for rows, truth in zip(each, self.do, strict=True)]
        )

    def metrics(self) -> dict[str, float]:
        """By the names that `engram.causal.scm.configs.ScmConfig` declares."""
        to_do = total_variation(self.estimated, self.do)
        found = {
            "test/distance_to_do": to_do.mean(),
            "test/largest_distance_to_do": to_do.max(),
            "test/distance_to_observed": total_variation(self.estimated, self.observed).mean(),
            "test/distance_of_pictures_to_do": self.of_pictures.mean(),
            "confounding": total_variation(self.observed, self.do).min(),
        }
        if self.gaps is not None:
            found["nwgm_gap"] = self.gaps[SCALES.index(1.0)].mean()
        return {name: float(value) for name, value in found.items()}

    def tables(self) -> dict[str, list[Row]]:
        """Distances by shape, every probability, and how far NWGM is from the exact mean."""
        distances: list[Row] = [
            {
                "shape": shape,
                "to_do": float(total_variation(self.estimated[number], self.do[number])),
                "to_observed": float(total_variation(self.estimated[number], self.observed[number])),
                "of_pictures_to_do": float(self.of_pictures[number]),
                "observed_to_do": float(total_variation(self.observed[number], self.do[number])),
            }
            for number, shape in enumerate(SHAPES)
        ]
        every: list[Row] = [
            {
                "shape": shape,
                "label": label,
                "answered": float(self.estimated[x, y]),
                "do": float(self.do[x, y]),
                "observed": float(self.observed[x, y]),
            }
            for x, shape in enumerate(SHAPES)
            for y, label in enumerate(SHAPES)
        ]
        if self.gaps is None:
            return {"distances": distances, "distributions": every}
        gaps: list[Row] = [
            {"scale": scale, "mean": float(gap.mean()), "largest": float(gap.max())}
            for scale, gap in zip(SCALES, self.gaps, strict=True)
        ]
        return {"distances": distances, "distributions": every, "nwgm": gaps}

    def figures(self) -> dict[str, Bars | Figure]:
        """The distributions as bars, and NWGM's gap."""
        series = {"answered": self.estimated, "P(y | do(x))": self.do, "P(y | x)": self.observed}
        bars = Bars(
            title="Answers to pictures of a shape, beside the distributions of the model",
            x_label="shape: label",
            y_label="probability",
            names=[f"{shape}: {label}" for shape in SHAPES for label in SHAPES],
            series={name: values.flatten().tolist() for name, values in series.items()},
        )
        if self.gaps is None:
            return {"distributions": bars}
        line = [(scale, float(gap.mean())) for scale, gap in zip(SCALES, self.gaps, strict=True)]
        gap = Figure(
            title="How far the mean of the logits (NWGM) is from the mean of the answers",
            x_label="scale of the logits",
            y_label="largest difference of a probability",
            series={"mean over pictures": line},
            x_scale="log2",
        )
        return {"distributions": bars, "nwgm": gap}
