"""The objective ``dfr``: the last layer fitted anew on as many images of every group."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import ObjectiveSetting, Training
from engram.backbone.errors import must
from engram.backbone.seeding import derive, generator
from engram.causal.objectives.last_layer import Known, LastLayer, Layer
from engram.causal.objectives.reference_options import DFROptions

STRENGTHS = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)
"""C that are tried: the smaller, the fewer features are used."""


class DFR(LastLayer):
    """Deep feature reweighting: logistic regression with an L1 penalty on the features of a trained network.

    Features are standardised by mean and deviation of the training images. Each fit is on all images of the smallest
    group and as many of every other, class by class, drawn anew; the layer has the mean of their coefficients. C is
    that of `STRENGTHS` by which the worst group of images kept back is best, after one fit each; where several are, the
    one with the better mean over groups, then the largest. A single image of a group in a class is fitted on, and the
    choice does not see it (`LastLayer.of_groups`).

    Source: Kirichenko, Izmailov and Wilson 2023 (arXiv 2204.02937), section 5 and appendix B.
    """

    def __init__(self, options: DFROptions, setting: ObjectiveSetting) -> None:
        super().__init__(setting, "dfr")
        self.options = options

    def fitted(self, training: Training, train: Known, start: Layer) -> Layer:
        held = self.known(training, self.validation)
        if self.options.on == "validation":
            whole, (fitting, choosing) = held, held.halves()
        else:
            whole = fitting = Known(train.features, train.labels, *self.groups(training.data))
            choosing = held
        for known in (whole, fitting):
            self._require_classes(known)
        self.note_groups(whole, choosing)
        scale = Scale.of(train.features)
        seed = training.options.seed
        self.row({"C": None}, start, choosing)
        scored: dict[float, tuple[float, float]] = {}
        for strength in STRENGTHS:
            layer = self._mean_of(fitting, scale, strength, (derive(seed, "dfr choice"),))
            scored[strength] = self.row({"C": strength}, layer, choosing)
        best = max(scored, key=lambda strength: scored[strength])
        seeds = tuple(derive(seed, "dfr", number) for number in range(self.options.refits))
        self.rows = [{**row, "chosen": row["C"] == best} for row in self.rows]
        return self._mean_of(whole, scale, best, seeds)

    def _mean_of(self, known: Known, scale: Scale, strength: float, seeds: tuple[int, ...]) -> Layer:
        """The mean of one fit for each seed, for features as they are."""
        fits = []
        for seed in seeds:
            rows = known.at(balanced(known, seed))
            fits.append(l1_logistic(scale(rows.features), rows.labels, self.outputs, strength, seed))
        weights, biases = zip(*((fit.weight, fit.bias) for fit in fits), strict=True)
        return scale.folded(Layer(torch.stack(weights).mean(0), torch.stack(biases).mean(0)))

    def _require_classes(self, known: Known) -> None:
        classes = len(known.labels.unique())
        if classes < self.outputs:
            rule, got = f"of all {self.outputs} classes for dfr", f"of {classes}"
            remedy = "Hold out more with --validation, or use --objective.on train."
            raise must("the images that the last layer is fitted on", rule, got, remedy)


class Scale:
    """Standardises features by those of the training images; what does not vary stays as it is.

    Args:
        mean: [F]; deviation: [F], above zero.
    """

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        self.mean, self.deviation = mean, deviation

    @classmethod
    def of(cls, features: Tensor) -> Scale:
        """That of some features, [N, F]."""
        deviation, mean = torch.std_mean(features, 0, correction=0)
        return cls(mean, torch.where(deviation > 0, deviation, 1.0))

    def __call__(self, features: Tensor) -> Tensor:
        """[N, F] -> [N, F]."""
        return (features - self.mean) / self.deviation

    def folded(self, layer: Layer) -> Layer:
        """The layer that makes of features as they are what the given one makes of standardised ones."""
        weight = layer.weight / self.deviation
        return Layer(weight, layer.bias - weight @ self.mean)


def balanced(known: Known, seed: int) -> Tensor:
    """Positions of as many images of every class and group as the smallest has, drawn by the seed."""
    cells, random = known.cells, generator(seed, "balanced")
    share, drawn = int(cells.bincount().min()), []
    for cell in range(int(cells.max()) + 1):
        members = (cells == cell).nonzero().squeeze(1)
        drawn.append(members[torch.randperm(len(members), generator=random)[:share]])
    return torch.cat(drawn)


def l1_logistic(features: Tensor, labels: Tensor, classes: int, strength: float, seed: int) -> Layer:
    """Logistic regression with an L1 penalty on weights and bias, by liblinear: of more than two classes each against
    the rest.

    Args:
        features: [N, F] float64.
        labels: [N] int64; every class has an image.
        classes: K.
        strength: C, the weight of the loss.
        seed: of the order in which coordinates are visited.
    """
    from sklearn.linear_model import LogisticRegression  # takes seconds

    x, found = features.numpy(), []
    for positive in [1] if classes == 2 else range(classes):
        fit = LogisticRegression(
            solver="liblinear", C=strength, random_state=seed % 2**32, max_iter=1000, **l1_penalty(LogisticRegression)
        )
        fit.fit(x, (labels == positive).numpy())
        found.append(torch.cat((torch.from_numpy(fit.coef_[0]), torch.tensor(fit.intercept_))))
    if classes == 2:  # softmax of -z / 2 and z / 2 is what the logistic function makes of z
        found = [-found[0] / 2, found[0] / 2]
    both = torch.stack(found)
    return Layer(both[:, :-1], both[:, -1])


def l1_penalty(kind: type) -> dict[str, Any]:
    """How the installed scikit-learn is told the penalty: since 1.8 by a ratio."""
    named = inspect.signature(kind).parameters.get("penalty")
    return {"l1_ratio": 1.0} if named is None or named.default == "deprecated" else {"penalty": "l1"}
