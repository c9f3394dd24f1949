"""Elastic deformation: a picture sheared a little and bent."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.data.corruptions.blur import smoothed
from engram.backbone.data.corruptions.draws import Draws
from engram.backbone.data.corruptions.levels import truncated

# how far points move, how smoothly, and by how much three corners are moved: in sides of the picture
_CONSTANTS = ((0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))


def elastic(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """An affine map that moves three points by up to 0.08 to 0.03 sides, then smooth displacements of every pixel.

    Both interpolate linearly, at exact places (OpenCV's are 32nds of a pixel). images: [B, C, H, W] uint8 -> the same.
    """
    far, smooth, moved = _CONSTANTS[severity - 1]
    height, width = images.shape[-2:]
    side = min(height, width)
    corners = (2 * draws.uniform(3, 2, part=0) - 1) * (moved * side)
    x = sampled(images.double(), *affine_places(corners, height, width), about_middles=True)
    if far:
        lots = 2 * draws.uniform(2, height, width, part=1) - 1
        bent = smoothed(lots, smooth * side, 3.0, mirrored=True) * (far * side)
        rows = torch.arange(height, dtype=torch.float64)[:, None] + bent[:, 0]
        columns = torch.arange(width, dtype=torch.float64) + bent[:, 1]
        x = sampled(x, rows, columns, about_middles=False)
    return truncated(x)


def affine_places(moved: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where every pixel comes from, rows and columns ``[B, H, W]``, where three points about the middle are moved.

    moved: [B, 3, 2] float64, (x, y) in pixels, of the points at (+, +), (+, -) and (-, -) a third of the side away.
    """
    third = max(1, min(height, width) // 3)
    middle = torch.tensor([width // 2, height // 2], dtype=torch.float64)
    first, second, last = (middle + third * torch.tensor(sign) + moved[:, k] for k, sign in enumerate(_SIGNS))
    a, c = ((second - last) / (2 * third)).unbind(1)  # what a step across becomes, and below a step down
    b, d = ((first - second) / (2 * third)).unbind(1)
    start = (middle + third * torch.tensor(_SIGNS[1]), second)
    x = torch.arange(width, dtype=torch.float64)[None, None] - start[1][:, 0, None, None]
    y = torch.arange(height, dtype=torch.float64)[None, :, None] - start[1][:, 1, None, None]
    a, b, c, d = (each[:, None, None] for each in (a, b, c, d))
    area = a * d - b * c
    return start[0][1] + (a * y - c * x) / area, start[0][0] + (d * x - b * y) / area


_SIGNS = ((1.0, 1.0), (1.0, -1.0), (-1.0, -1.0))


def sampled(x: Tensor, rows: Tensor, columns: Tensor, *, about_middles: bool) -> Tensor:
    """``x: [B, C, H, W] float64`` at places ``[B, H, W]`` in pixels, interpolated linearly.

    Beyond its border it is mirrored: about the middles of the border's pixels, or about their outer edges.
    """
    height, width = x.shape[-2:]
    sizes = (max(width - 1, 1), max(height - 1, 1)) if about_middles else (width, height)
    shift = 0.0 if about_middles else 0.5
    grid = torch.stack([2 * (at + shift) / size - 1 for at, size in zip((columns, rows), sizes, strict=True)], -1)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=about_middles)
