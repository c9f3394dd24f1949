"""Occlusion: part of a picture hidden behind grey bars, blobs or a rectangle; the protocol ``engram-occlusion/1``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engram.backbone.data.corruptions.blur import smoothed
from engram.backbone.data.corruptions.draws import Draws
from engram.backbone.data.corruptions.noise import normal_quantiles
from engram.backbone.data.corruptions.options import OCCLUSIONS, Occlusion

GREY = 128
"""What hides, in all channels: it can be told from black and from white."""
_SHARE = (0.1, 0.2, 0.3, 0.4, 0.5)
_BARS = 4  # in the shorter side, about; fewer where they would be less than 4 pixels apart
_BLOB = 0.1  # standard deviation of what smooths the noise that blobs are made of, in sides
_LONGEST = 2.0  # side of a rectangle, in the other one's: large ones would all be in the middle without


def bars(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Parallel bars in any direction, a quarter of the shorter side apart, hide 0.1 to 0.5.

    images: [B, C, H, W] uint8 -> the same.
    """
    return _behind("bars", images, severity, draws)


def blobs(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """The highest parts of smooth noise hide 0.1 to 0.5. images: [B, C, H, W] uint8 -> the same."""
    return _behind("blobs", images, severity, draws)


def cutout(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """A rectangle, wholly in the picture, hides 0.1 to 0.5. images: [B, C, H, W] uint8 -> the same.

    Its sides are to each other as the picture's, or one is up to twice as long as that.
    """
    return _behind("cutout", images, severity, draws)


def _behind(kind: Occlusion, images: Tensor, severity: int, draws: Draws) -> Tensor:
    shares = torch.full((len(images),), _SHARE[severity - 1], dtype=torch.float64)
    return images.masked_fill(hidden(kind, shares, draws, *images.shape[-2:])[:, None], GREY)


def hidden(kind: Occlusion, shares: Tensor, draws: Draws, height: int, width: int) -> Tensor:
    """Which pixels are hidden, ``[B, H, W] bool``: the share ``shares: [B] float64`` of each image.

    Bars and blobs hide that share to the nearest pixel, a rectangle to the nearest row and column.
    """
    if kind == "cutout":
        return _rectangle(shares, draws, height, width)
    field = _distance_to_bars(draws, height, width) if kind == "bars" else -_smooth_noise(draws, height, width)
    counts = (shares * (height * width)).round()
    order = field.flatten(1).argsort(dim=1, stable=True)
    first = torch.arange(height * width) < counts[:, None]
    return torch.zeros_like(first).scatter_(1, order, first).view(-1, height, width)


def hidden_by_lot(most: float, draws: Draws, height: int, width: int) -> Tensor:
    """Each image behind bars, blobs or a rectangle, by lot, up to a share of ``most``: ``[B, H, W] bool``."""
    lot = draws.uniform(2, part=7)
    shares, which = most * lot[:, 0], (len(OCCLUSIONS) * lot[:, 1]).long()
    found = torch.zeros(len(lot), height, width, dtype=torch.bool)
    for number, kind in enumerate(OCCLUSIONS):
        rows = (which == number).nonzero()[:, 0]
        if len(rows):
            found[rows] = hidden(kind, shares[rows], draws.select(rows), height, width)
    return found


def _distance_to_bars(draws: Draws, height: int, width: int) -> Tensor:
    """``[B, H, W] float64``, the smaller the nearer to the middle of a bar."""
    angle, phase = draws.uniform(2).unbind(1)
    angle = angle * math.pi
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    across = columns * angle.cos()[:, None, None] + rows * angle.sin()[:, None, None]
    apart = max(min(height, width) / _BARS, 4)
    return ((across / apart + phase[:, None, None]) % 1 - 0.5).abs()


def _smooth_noise(draws: Draws, height: int, width: int) -> Tensor:
    """``[B, H, W] float64``."""
    noise = normal_quantiles()[draws.words(height, width)]
    return smoothed(noise, _BLOB * min(height, width), 4.0, mirrored=True)


def _rectangle(shares: Tensor, draws: Draws, height: int, width: int) -> Tensor:
    down, across, shape = draws.uniform(3).unbind(1)
    tall = (height * (shares * _LONGEST ** (2 * shape - 1)).sqrt().clamp(max=1)).round()
    wide = (shares * (height * width) / tall.clamp(min=1)).round().clamp(max=width)
    top, left = (down * (height - tall + 1)).floor(), (across * (width - wide + 1)).floor()
    rows, columns = torch.arange(height), torch.arange(width)
    within = (rows >= top[:, None]) & (rows < (top + tall)[:, None])
    beside = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    return within[:, :, None] & beside[:, None]
