"""Batched image augmentation as tensor code: one draw per image, no loop over images."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.backbone.data.corruptions.draws import Draws
from engram.backbone.data.corruptions.occlusion import hidden_by_lot
from engram.backbone.errors import must


class Rows(NamedTuple):
    """Which images of a batch are at hand, where another process has the others: every one is drawn for."""

    whole: int
    """How many the batch has."""
    here: slice


def all_rows(x: Tensor) -> Rows:
    """All images of a batch [B, ...]."""
    return Rows(len(x), slice(None))


def flip(x: Tensor, which: Tensor) -> Tensor:
    """Mirror some images left to right. x: [B, C, H, W]; which: [B] bool."""
    return torch.where(which[:, None, None, None], x.flip(-1), x)


def by_chance(rows: Rows, random: torch.Generator, device: torch.device) -> Tensor:
    """[B] bool, true for half of them."""
    return (torch.rand(rows.whole, generator=random)[rows.here] < 0.5).to(device, non_blocking=True)


def flip_alternate(x: Tensor, indices: Tensor, epoch: int) -> Tensor:
    """Mirror half of the images in even epochs and the other half in odd ones.

    An image is seen both ways in any two epochs, which a coin would not guarantee. indices: [B] int64, the images'
    places in the training set, hashed so that no class pattern in their order matters.

    Source: Jordan 2024 (arXiv 2404.00498), section 3.6.
    """
    coin = (indices * 2654435761 >> 16) & 1
    return flip(x, (coin + epoch) % 2 == 1)


def translate(
    x: Tensor, pixels: int, generator: torch.Generator, black: Tensor | None = None, rows: Rows | None = None
) -> Tensor:
    """Shift every image by up to ``pixels`` in each direction. x: [B, C, H, W].

    Beyond its border an image is reflected, or where ``black`` [C] is given, what black is in each channel.
    """
    batch, _, height, width = x.shape
    if black is not None:
        shape = (batch, x.shape[1], height + 2 * pixels, width + 2 * pixels)
        padded = black[:, None, None].expand(shape).contiguous(memory_format=torch.channels_last)
        padded[:, :, pixels : pixels + height, pixels : pixels + width] = x
    else:
        padded = F.pad(x, (pixels,) * 4, mode="reflect" if pixels < min(height, width) else "replicate")
    count, here = rows or all_rows(x)
    shift = torch.randint(0, 2 * pixels + 1, (2, count), generator=generator, device=generator.device)[:, here]
    if x.is_cuda:
        return gathered(padded, shift.to(x.device, non_blocking=True), height, width)
    high = _crop(padded, shift[0], 2, height)
    return _crop(high, shift[1], 3, width)


def warp(
    x: Tensor,
    affine: float,
    elastic: float,
    generator: torch.Generator,
    black: Tensor | None = None,
    rows: Rows | None = None,
) -> Tensor:
    """Turn, shear and stretch every image about its middle, and bend it smoothly. x: [B, C, H, W].

    Beyond its border an image is reflected, or where ``black`` [C] is given, what black is in each channel.

    Args:
        affine: largest angle in radians, largest shear, and largest logarithm of the factor by which each side grows
            or shrinks; each is drawn uniformly, for every image.
        elastic: standard deviation, in pixels, of the displacements of a lattice of 4 x 4 points over the image;
            between them displacements are cubic (Simard, Steinkraus and Platt 2003 smooth noise of every pixel).
    """
    batch, _, height, width = x.shape
    count, here = rows or all_rows(x)
    size = torch.tensor([width, height], dtype=torch.float32)
    if affine:
        drawn = affine * (2 * torch.rand(4, count, generator=generator, device=generator.device)[:, here] - 1)
        matrix = _linear(drawn) * (size / size[:, None])  # of places in pixels, where grids have sides of length 2
    else:
        matrix = torch.eye(2).expand(batch, 2, 2)
    theta = F.pad(matrix, (0, 1)).to(x.device, non_blocking=True)
    grid = F.affine_grid(theta, [batch, 1, height, width], align_corners=False)
    if elastic:
        moved = elastic * torch.randn(count, 2, 4, 4, generator=generator, device=generator.device)[here]
        moved = (moved * (2 / size)[:, None, None]).to(x.device, non_blocking=True)
        bent = F.interpolate(moved, (height, width), mode="bicubic", align_corners=True)
        grid = grid + bent.permute(0, 2, 3, 1)
    if black is None:
        return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    darkest = black[:, None, None]
    return F.grid_sample(x - darkest, grid, padding_mode="zeros", align_corners=False) + darkest


def _linear(drawn: Tensor) -> Tensor:
    """Matrices [B, 2, 2] of angles, shears and the logarithms of both factors, ``drawn: [4, B]``."""
    angle, across, wide, high = drawn
    cos, sin, none, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    turned = torch.stack((cos, -sin, sin, cos), -1).view(-1, 2, 2)
    sheared = torch.stack((one, across, none, one), -1).view(-1, 2, 2)
    stretched = torch.stack((wide.exp(), none, none, high.exp()), -1).view(-1, 2, 2)
    return turned @ sheared @ stretched


def gathered(x: Tensor, start: Tensor, height: int, width: int) -> Tensor:
    """Cut a window out of every image. x: [B, C, H', W']; start: [2, B], its top and left -> [B, C, height, width].

    One gather that never asks the device for a number, where `_crop` would do so for every distinct start; on a CPU it
    is the slower of the two.
    """
    rows = start[0, :, None] + torch.arange(height, device=x.device)
    columns = start[1, :, None] + torch.arange(width, device=x.device)
    images = torch.arange(len(x), device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[images, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _crop(x: Tensor, start: Tensor, dim: int, length: int) -> Tensor:
    """Cut ``length`` values along ``dim`` out of every image, each from its own start; one copy per distinct start."""
    shape = list(x.shape)
    shape[dim] = length
    nhwc = x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if nhwc else torch.contiguous_format
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    for value in range(x.shape[dim] - length + 1):
        chosen = (start == value).nonzero().squeeze(1)
        out[chosen] = x.narrow(dim, value, length)[chosen]
    return out


def cutout(x: Tensor, side: int, generator: torch.Generator, rows: Rows | None = None) -> Tensor:
    """Blank a square in every image; zero is the mean colour of normalised images. x: [B, C, H, W].

    Source: DeVries and Taylor 2017 (arXiv 1708.04552), section 3.
    """
    height, width = x.shape[2:]
    count, here = rows or all_rows(x)
    top = torch.randint(0, height, (count,), generator=generator, device=generator.device)[here] - side // 2
    left = torch.randint(0, width, (count,), generator=generator, device=generator.device)[here] - side // 2
    row = torch.arange(height, device=x.device) - top[:, None].to(x.device, non_blocking=True)
    column = torch.arange(width, device=x.device) - left[:, None].to(x.device, non_blocking=True)
    inside = ((row >= 0) & (row < side))[:, :, None] & ((column >= 0) & (column < side))[:, None, :]
    return x.masked_fill(inside[:, None], 0.0)


def occlude(x: Tensor, most: float, generator: torch.Generator, hidden: Tensor, rows: Rows | None = None) -> Tensor:
    """Hide up to a share of ``most`` of every image, by lot (`engram.backbone.data.corruptions.occlusion`).

    x: [B, C, H, W]; hidden: [C], what is seen in its place.
    """
    count, here = rows or all_rows(x)
    draws = Draws.of(_drawn_seed(generator), torch.arange(count)[here])
    where = hidden_by_lot(most, draws, *x.shape[-2:]).to(x.device, non_blocking=True)
    return torch.where(where[:, None], hidden[:, None, None].to(x.dtype), x)


def noisy(
    x: Tensor, most: float, generator: torch.Generator, black: Tensor, white: Tensor, rows: Rows | None = None
) -> Tensor:
    """Add Gaussian noise of a standard deviation of up to ``most`` of the way from black to white, one an image.

    No value leaves that way. x: [B, C, H, W]; black, white: [C], what these are in each channel.
    """
    on_device = torch.Generator(x.device).manual_seed(_drawn_seed(generator))
    black, white = black[:, None, None], white[:, None, None]
    count, here = rows or all_rows(x)
    deviation = most * torch.rand(count, 1, 1, 1, generator=on_device, device=x.device)[here]
    noise = torch.randn(count, *x.shape[1:], generator=on_device, device=x.device)[here]
    return torch.clamp(x + deviation * (white - black) * noise, black, white)


def _drawn_seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))


def rand_augment(x: Tensor, operations: int, seed: int) -> Tensor:
    """torchvision's RandAugment on uint8 images [B, C, H, W] or [B, T, C, H, W], with its default magnitude 9.

    The operations are drawn for blocks of 8 images, a compromise between one draw per batch and a Python loop over
    images. Grey images pass as RGB, since torchvision's colour operations need three channels.

    Raises:
        UserError: the images are neither grey nor coloured, as event frames of two polarities.

    Source: Cubuk et al. 2020 (arXiv 1909.13719).
    """
    from torchvision.transforms import v2  # heavy, and only this needs it

    if x.shape[-3] not in (1, 3):
        raise must("--randaugment", "0 for images of neither 1 nor 3 channels", operations, "Use --translate, --flip.")
    grey = x.shape[-3] == 1
    images = x.expand(*x.shape[:-3], 3, -1, -1) if grey else x
    transform = v2.RandAugment(num_ops=operations)
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # torchvision draws from the global generator
        torch.manual_seed(seed)
        images = torch.cat([transform(block) for block in images.split(8)])
    return images.narrow(-3, 0, 1) if grey else images
