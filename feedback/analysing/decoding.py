"""What features tell of a part of the picture that was hidden from the network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.data.corruptions.occlusion import GREY
from engram.backbone.seeding import generator
from engram.backbone.solving import ridge

PENALTIES = tuple(10.0**power for power in range(-3, 4))
"""Of the weights, for each picture, where features have a variance of 1 on average."""
_CELLS, _WIDTH, _SIDE = 8, 256, 4


def hidden_part(height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the middle quarter of a picture.

    >>> hidden_part(8, 8)
    (slice(2, 6, None), slice(2, 6, None))
    """
    down, across = (height + 1) // 4, (width + 1) // 4
    return slice(down, down + (height + 1) // 2), slice(across, across + (width + 1) // 2)


def behind(images: Tensor) -> Tensor:
    """images: [B, C, H, W] uint8 -> the same with the middle quarter hidden behind grey."""
    found = images.clone()
    found[(..., *hidden_part(*images.shape[-2:]))] = GREY
    return found


def sought(images: Tensor) -> Tensor:
    """images: [B, C, H, W] uint8 -> what is hidden, in [0, 1], as at most 8x8 cells a channel, [B, cells] float32."""
    part = images[(..., *hidden_part(*images.shape[-2:]))].float() / 255
    return _pooled(part, _CELLS).flatten(1)


def seen(images: Tensor) -> Tensor:
    """images: [B, C, H, W] uint8 -> what is not hidden, in [0, 1], [B, pixels] float32."""
    shown = torch.ones(images.shape[-2:], dtype=torch.bool, device=images.device)
    shown[hidden_part(*images.shape[-2:])] = False
    return images[..., shown].flatten(1).float() / 255


def told(value: Tensor, seed: int, name: str) -> Tensor:
    """Features as a decoder reads them: with their places kept, but no more than 256 of them.

    Maps become 4x4 cells a channel at most; of more than 256 values that many random mixtures are taken, which are the
    same for one seed and name.

    Args:
        value: [B, C, H, W] or [B, D].
        seed, name: of the mixtures.

    Returns: [B, at most 256] float32.
    """
    flat = (_pooled(value, _SIDE) if value.ndim == 4 else value).flatten(1).float()
    width = flat.shape[1]
    if width <= _WIDTH:
        return flat
    mixing = torch.randn(width, _WIDTH, generator=generator(seed, f"decoder/{name}")) / width**0.5
    return flat @ mixing.to(flat.device)


def _pooled(value: Tensor, most: int) -> Tensor:
    """value: [B, C, H, W] -> the same in at most so many rows and columns of cells."""
    height, width = value.shape[-2:]
    return F.adaptive_avg_pool2d(value, (min(height, most), min(width, most)))


@dataclass(frozen=True)
class Decoder:
    """A linear map from features to what is hidden.

    Attributes:
        mean: [D] float64, of the features it was fitted on.
        scale: [] float64, the root of their mean variance: one for all, or what hardly varied among training pictures
            would weigh most where it does.
        weights: [D, cells] float64.
        bias: [cells] float64: the mean of what is hidden.
        penalty: the one that was chosen.
    """

    mean: Tensor
    scale: Tensor
    weights: Tensor
    bias: Tensor
    penalty: float

    def __call__(self, features: Tensor) -> Tensor:
        """features: [B, D] -> [B, cells] float64."""
        return (features.double() - self.mean) / self.scale @ self.weights + self.bias


def fit(features: Tensor, targets: Tensor) -> Decoder:
    """The ridge regression of what is hidden on features.

    The penalty is chosen on the last quarter of the pictures by a fit to the others; the decoder is fitted to all.

    Args:
        features: [N, D] of training pictures.
        targets: [N, cells] of the same.
    """
    kept = len(features) - len(features) // 4
    errors = {
        penalty: float(
            (solve(features[:kept], targets[:kept], penalty)(features[kept:]) - targets[kept:]).square().sum()
        )
        for penalty in PENALTIES
    }
    return solve(features, targets, min(PENALTIES, key=lambda penalty: errors[penalty]))


def solve(features: Tensor, targets: Tensor, penalty: float) -> Decoder:
    """The weights with the least ``|X W + b - Y|^2 / N + penalty |W|^2``, of features X with mean 0 and variance 1."""
    x, y = features.double(), targets.double()
    mean, bias = x.mean(0), y.mean(0)
    scale = (x - mean).square().mean().sqrt()
    scale = scale.masked_fill(scale == 0, 1)  # what is the same for all tells nothing
    weights = ridge((x - mean) / scale, x.new_tensor(penalty * len(x)), y - bias)
    return Decoder(mean, scale, weights, bias, penalty)
