"""The objective ``afr``: the last layer fitted anew on images that a first network is unsure of."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from engram.backbone.contract import ObjectiveSetting, Training
from engram.backbone.errors import TrialError
from engram.causal.objectives.last_layer import Known, LastLayer, Layer
from engram.causal.objectives.reference_options import AFROptions

GAMMAS = (1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 14.0, 20.0)
"""Values of gamma that are tried."""
DISTANCES = (0.001, 0.01, 0.1, 0.2, 0.4)
"""Weights of the distance that are tried."""


class AFR(LastLayer):
    """Automatic feature reweighting: the last layer is fitted on images that the network was not trained on, of which
    those count more whose class it is unsure of, and does not go far from where it was.

        sum_i w_i CE_i(W) + lambda |W - W_ref|^2,    w_i = exp(-gamma p_ref(y_i | x_i)) / n_(y_i), divided by their sum

    n_c is how many images there are of class c. The minimum is unique, and it is found to the end; the paper stops
    gradient descent early. Half of the validation images are the ones that the network was not trained on; the other
    half choose gamma and lambda by their worst group.

    Source: Qiu, Potapczynski, Izmailov and Wilson 2023 (arXiv 2306.11074), section 4; the authors' code for n_c.
    """

    def __init__(self, options: AFROptions, setting: ObjectiveSetting) -> None:
        super().__init__(setting, "afr")
        self.options = options

    def fitted(self, training: Training, train: Known, start: Layer) -> Layer:
        gamma, l2 = self.options.gamma, self.options.l2
        if gamma is not None and l2 is not None:
            known = self.known(training, self.validation, grouped=False)
            return nearest_layer(known, weights_of(start, known, gamma), l2, start)
        fitting, choosing = self.known(training, self.validation).halves()
        self.note_groups(fitting, choosing)
        self.row({"gamma": None, "l2": None}, start, choosing)
        tried: list[tuple[tuple[float, float], Layer]] = []
        for each in product(GAMMAS if gamma is None else (gamma,), DISTANCES if l2 is None else (l2,)):
            layer = nearest_layer(fitting, weights_of(start, fitting, each[0]), each[1], start)
            tried.append((self.row({"gamma": each[0], "l2": each[1]}, layer, choosing), layer))
        best = max(range(len(tried)), key=lambda index: tried[index][0])
        self.rows = [{**row, "chosen": index == best} for index, row in enumerate(self.rows, start=-1)]
        return tried[best][1]


def weights_of(reference: Layer, known: Known, gamma: float) -> Tensor:
    """What every image counts, [N] float64, with sum 1."""
    sure = reference(known.features).softmax(1).gather(1, known.labels[:, None]).squeeze(1)
    weights = torch.exp(-gamma * sure) / known.labels.bincount()[known.labels]
    return weights / weights.sum()


def nearest_layer(known: Known, weights: Tensor, l2: float, start: Layer) -> Layer:
    """The layer with the least weighted cross-entropy plus ``l2`` times its squared distance from another, by L-BFGS.

    Args:
        known: the images.
        weights: [N] float64.
        l2: above zero, so that there is one minimum.
        start: the other layer; the distance is over weights and biases.

    Raises:
        TrialError: no minimum is found.
    """
    x, shape = F.pad(known.features, (0, 1), value=1.0), (len(start.bias), -1)
    origin = torch.cat((start.weight, start.bias[:, None]), 1)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        both = torch.from_numpy(flat).view(shape)
        moved, logs = both - origin, (x @ both.T).log_softmax(1)
        slope = logs.exp()
        slope[torch.arange(len(slope)), known.labels] -= 1
        slope = (slope * weights[:, None]).T @ x + 2 * l2 * moved
        each = logs.gather(1, known.labels[:, None]).squeeze(1)
        return float(l2 * moved.square().sum() - weights @ each), slope.flatten().numpy()

    limits = {"maxiter": 5000, "maxfun": 10000, "ftol": 0.0, "gtol": 1e-7}
    found = minimize(loss, origin.flatten().numpy(), jac=True, method="L-BFGS-B", options=limits)
    if not np.isfinite(found.fun):
        raise TrialError(f"the loss of afr must be finite; got {found.fun}. Use features of a smaller scale.")
    both = torch.from_numpy(found.x).view(shape)
    return Layer(both[:, :-1].clone(), both[:, -1].clone())
