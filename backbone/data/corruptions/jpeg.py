"""Baseline JPEG and back again, as libjpeg does it by default: without the file, which loses nothing."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from engram.backbone.data.corruptions.draws import Draws
from engram.backbone.data.corruptions.levels import rounded

_QUALITY = (80, 65, 58, 50, 40)
_BLOCK = 8
_ONE = 1 << 13
_LUMA = """
16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99
"""
_CHROMA = """
17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99
"""
# rows: Y, Cb, Cr of R, G, B, in 65536ths
_TO_YCC = ((19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329))
_RED, _GREEN, _BLUE = 91881, (-22554, -46802), 116130  # of Cr, of Cb and Cr, of Cb


def jpeg(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Stored at quality 80 to 40 and read again. images: [B, C, H, W] uint8, 1 or 3 channels -> the same."""
    return round_trip(images, _QUALITY[severity - 1])


def round_trip(images: Tensor, quality: int) -> Tensor:
    """Pictures as a JPEG file of them shows them. images: [B, C, H, W] uint8, 1 or 3 channels -> the same.

    Colour has half the resolution in both directions (4:2:0) and is interpolated when it is read. Values are rounded
    wherever libjpeg's are.

    Source: ITU-T T.81 (1992), annexes A and K; ITU-T T.871 (2011), section 7.
    """
    luma, chroma = (_table(text, quality) for text in (_LUMA, _CHROMA))
    if images.shape[1] == 1:
        return _coded(images[:, 0].int(), luma)[:, None].byte()
    height, width = images.shape[-2:]
    x = images.int()
    y, *colours = (_of(x, weights, 0 if row == 0 else 128) for row, weights in enumerate(_TO_YCC))
    y = _coded(y, luma)
    blue, red = (_doubled(_coded(_halved(each), chroma, -(-height // 2), -(-width // 2))) for each in colours)
    blue, red = (each[:, :height, :width] - 128 for each in (blue, red))
    half = 1 << 15
    channels = (
        y + (_RED * red + half >> 16),
        y + (_GREEN[0] * blue + _GREEN[1] * red + half >> 16),
        y + (_BLUE * blue + half >> 16),
    )
    return torch.stack(channels, 1).clamp(0, 255).byte()


def _of(x: Tensor, weights: tuple[int, int, int], middle: int) -> Tensor:
    """One of Y, Cb and Cr, ``[B, H, W] int32``."""
    red, green, blue = weights
    half = (1 << 15) - (middle > 0)
    return (red * x[:, 0] + green * x[:, 1] + blue * x[:, 2] + (middle << 16) + half) >> 16


def _halved(x: Tensor) -> Tensor:
    """``[B, H, W] int32`` -> the means of 2 x 2 pixels, for whole blocks of them.

    The mean's halves go down and up in turn. Missing columns are those of the picture again, missing rows are made of
    the means: so libjpeg fills its blocks.
    """
    height, width = x.shape[1:]
    across = -(-width // (2 * _BLOCK)) * 2 * _BLOCK
    x = _longer(_longer(x, 2, across), 1, height + height % 2)
    bias = 1 + torch.arange(across // 2, dtype=torch.int32) % 2
    rows = x[:, 0::2] + x[:, 1::2]
    return (rows[:, :, 0::2] + rows[:, :, 1::2] + bias) >> 2


def _doubled(x: Tensor) -> Tensor:
    """``[B, h, w] int32`` -> ``[B, 2 h, 2 w]``: three parts of the nearest value and one of the next, both ways."""
    above, below = torch.cat((x[:, :1], x[:, :-1]), 1), torch.cat((x[:, 1:], x[:, -1:]), 1)
    rows = torch.stack((3 * x + above, 3 * x + below), 2).flatten(1, 2)
    left, right = torch.cat((rows[..., :1], rows[..., :-1]), 2), torch.cat((rows[..., 1:], rows[..., -1:]), 2)
    return torch.stack((3 * rows + left + 8 >> 4, 3 * rows + right + 7 >> 4), 3).flatten(2)


def _coded(x: Tensor, table: Tensor, height: int | None = None, width: int | None = None) -> Tensor:
    """``[B, H, W] int32`` of 0..255 with its coefficients quantised, as much of it as is asked for."""
    height, width = height or x.shape[1], width or x.shape[2]
    rows, columns = (-(-length // _BLOCK) for length in x.shape[1:])
    x = _longer(_longer(x, 1, rows * _BLOCK), 2, columns * _BLOCK)
    across = _cosines().T
    blocks = (x - 128).double().view(-1, rows, _BLOCK, columns, _BLOCK).transpose(2, 3)
    turned = _whole(4 * (blocks @ across)).transpose(3, 4)
    steps = 8 * table.T
    coefficients = _whole((turned @ across) / 4) / steps  # eight times as large as they are, and transposed
    kept = ((coefficients.abs() + 0.5).floor() * coefficients.sign() * table.T).transpose(3, 4)
    turned = _whole(4 * (kept.transpose(3, 4) @ across.T))
    found = rounded((turned.transpose(3, 4) @ across.T) / 32 + 128)
    found = found.transpose(2, 3).reshape(len(x), rows * _BLOCK, columns * _BLOCK)
    return found[:, :height, :width].int()


def _longer(x: Tensor, side: int, length: int) -> Tensor:
    """The last row or column repeated up to a length."""
    missing = length - x.shape[side]
    return torch.cat((x, x.narrow(side, x.shape[side] - 1, 1).repeat_interleave(missing, side)), side)


@cache
def _cosines() -> Tensor:
    """``[8, 8] float64``: the cosine transform of eight values, the first of which is their sum.

    It is made of the constants of a fast algorithm, each rounded to 13 bits: sums of eight whole numbers are exact, and
    those of libjpeg.

    Source: Loeffler, Ligtenberg and Moschytz 1989, "Practical Fast 1-D DCT Algorithms with 11 Multiplications".
    """
    one, two, three, five, six, seven = (math.sqrt(2) * math.cos(k * math.pi / 16) for k in (1, 2, 3, 5, 6, 7))
    even = _fixed(six) * torch.ones(2, 2) + torch.diag(torch.tensor([_fixed(two - six), -_fixed(two + six)]))
    own = (
        -one + three + five - seven,
        one + three - five + seven,
        one + three + five - seven,
        one + three - five - seven,
    )
    odd = torch.diag(torch.tensor([_fixed(each) for each in own])) + _fixed(three)
    for pair, rotation in (
        ((0, 3), seven - three),
        ((1, 2), -one - three),
        ((0, 2), -three - five),
        ((1, 3), five - three),
    ):
        for row in pair:
            odd[row, list(pair)] += _fixed(rotation)
    table = torch.empty(8, 4, dtype=torch.float64)  # the other half is the same, or its negative
    table[0], table[4] = _ONE, torch.tensor([_ONE, -_ONE, -_ONE, _ONE])
    table[2::4, 0], table[2::4, 1] = even[:, 0], even[:, 1]
    table[2::4, 2:] = -table[2::4, :2].flip(1)
    table[[7, 5, 3, 1]] = odd.double().flip(1)
    signs = (-1.0) ** torch.arange(8, dtype=torch.float64)[:, None]
    return torch.cat((table, signs * table.flip(1)), 1) / _ONE


def _fixed(constant: float) -> int:
    return round(_ONE * constant)


def _whole(x: Tensor) -> Tensor:
    """The nearest whole numbers, halves up."""
    return (x + 0.5).floor()


@cache
def _table(text: str, quality: int) -> Tensor:
    """``[8, 8] float64``: steps of the coefficients, the larger the lower the quality, of 1 to 100."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = (torch.tensor([int(word) for word in text.split()]) * scale + 50) // 100
    return steps.clamp(1, 255).double().view(_BLOCK, _BLOCK)
