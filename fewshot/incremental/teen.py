"""TEEN: prototypes of new classes moved towards those of the base classes they resemble."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.nets.prototypes import class_means


def calibrated(novel: Tensor, base: Tensor, share: float, scale: float) -> Tensor:
    """Prototypes of new classes after calibration.

    With unit vectors n of a new class and b_1 ... b_B of the base classes it is

        n' = (1 - a) n + a d / |d|,   d = sum_j w_j b_j,   w = softmax_j(s n . b_j),

    as long as the new prototype was before it was a unit vector: to a classifier by cosine the length means nothing,
    and one by distance needs it. A few images say little of a class, and the mean of theirs lies too close to a base
    class that has many; no gradient is needed to put it right.

    Args:
        novel: [N, F].
        base: [B, F].
        share: a, in [0, 1].
        scale: s.

    Returns: [N, F].

    Source: Wang et al. 2023 (arXiv 2312.05229), with unit vectors as in their published code.
    """
    new, known = F.normalize(novel, dim=1), F.normalize(base, dim=1)
    resembled = F.normalize(torch.softmax(scale * new @ known.T, 1) @ known, dim=1)
    return novel.norm(dim=1, keepdim=True) * ((1 - share) * new + share * resembled)


def calibrate(features: Tensor, labels: Tensor, base: Tensor, share: float, scale: float) -> Tensor:
    """Features of training images after calibration: those of a new class are all moved as its prototype is.

    So whatever is fitted to them finds the calibrated prototypes as class means.

    Args:
        features: [S, F].
        labels: [S] int64 classes.
        base: [B] int64, the base classes.
        share, scale: as in `calibrated`.

    Returns: [S, F].
    """
    classes, places = labels.unique(return_inverse=True)
    means = class_means(features, places, len(classes))
    old = torch.isin(classes, base.to(classes.device))
    moved = torch.zeros_like(means)
    moved[~old] = calibrated(means[~old], means[old], share, scale) - means[~old]
    return features + moved[places]
