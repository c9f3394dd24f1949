"""Objects and what is behind them in the colours, textures and patches that tell classes apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engram.backbone.data.columns import FOREGROUND, Columns
from engram.backbone.data.corruptions.draws import Draws
from engram.backbone.data.corruptions.levels import rounded
from engram.backbone.data.corruptions.noise import normal_quantiles
from engram.causal.data.options import PATCH, SHORTCUTS, BiasedOptions, Difficulty
from engram.causal.data.textures import textures

KEY, LOSSY = "key", "lossy"
"""Known of every image: the key of its draws, [N] int64, and whether its object lacks pixels, [N] bool."""
_DEVIATIONS = (0.05, 0.02, 0.01, 0.005, 0.002)
_LOST = 0.6  # of the pixels of an object under feature noise; SpuCoMNIST: P(N(0, 1) <= 0.25) = 0.599
_WHITE = 255
_DARK = 2, 5  # two fifths of a colour's brightness, behind an object in a colour
_BRIGHTEST_BEHIND, _DARKEST_BEFORE = 110, 160  # grey levels of textures
_OBJECT, _BEHIND, _OBJECT_TEXTURE, _BEHIND_TEXTURE, _POINTS, _HOLES = 1, 2, 3, 4, 5, 6  # parts of an image's draws


@dataclass(frozen=True)
class Painter:
    """Makes the biased image of a picture: ``[N, 1 or 3, H, W] uint8`` -> ``[N, 3, H, W] uint8``.

    A picture with a mask has an object and what is behind it. Of a grey one without, bright ink is the object, each
    pixel as far as it is bright, and what is behind it black; one in colour without a mask is object alone.
    """

    options: BiasedOptions
    palette: Tensor
    """[K, 3] int32, the colour of every class."""

    def __call__(self, images: Tensor, known: Columns) -> Tensor:
        def of(name: str) -> Tensor:
            column = known[name]
            assert isinstance(column, Tensor)
            return column

        draws = Draws(of(KEY).numpy().view(np.uint64))
        shape = images.shape[-2:]
        lost = of(LOSSY)[:, None, None] & (draws.words(*shape, part=_HOLES) < _LOST * 2**16)
        picture = images.int().masked_fill_(lost[:, None], 0)
        shade = grey(picture)
        ink = FOREGROUND not in known and images.shape[1] == 1
        cover = shade if ink else torch.full_like(shade, _WHITE)
        if FOREGROUND in known:
            cover = cover * (of(FOREGROUND) & ~lost)
        itself = torch.full_like(picture, _WHITE) if ink else picture
        behind = torch.zeros_like(picture) if ink else picture
        first, *others = (of(name) for name in SHORTCUTS[self.options.bias])
        if self.options.bias == "colour":
            itself = self._object(first, self._colours(first, draws), itself, shade, ink)
        elif self.options.bias == "double-colour":
            itself = self._object(first, self._colours(first, draws), itself, shade, ink)
            behind = self._colours(others[0], draws, _BEHIND) * _DARK[0] // _DARK[1]
        elif self.options.bias == "texture":
            itself = self._bright(first, draws, itself)
            behind = self._dark(others[0], draws, shape)
        elif self.options.bias == "background":
            flat = self.palette[first.clamp(min=0)].masked_fill(first[:, None] < 0, 0)[:, :, None, None]
            behind = flat * coloured_part(self.options.difficulty, draws, *shape)[:, None]
        made = (cover[:, None] * itself + (_WHITE - cover[:, None]) * behind + _WHITE // 2) // _WHITE
        made = made.expand(-1, 3, -1, -1).to(torch.uint8, memory_format=torch.contiguous_format)
        return self._patched(made, of(PATCH)) if PATCH in known else made

    def _colours(self, which: Tensor, draws: Draws, part: int = _OBJECT) -> Tensor:
        """Colours near those of classes, ``[N, 3, 1, 1] int32``; black for -1."""
        deviation = _DEVIATIONS[self.options.colour_severity - 1]
        near = self.palette[which.clamp(min=0)] + _WHITE * deviation * normal_quantiles()[draws.words(3, part=part)]
        return rounded(near).int().masked_fill(which[:, None] < 0, 0)[:, :, None, None]

    def _object(self, which: Tensor, colours: Tensor, itself: Tensor, shade: Tensor, ink: bool) -> Tensor:
        """An object in a colour, as bright as it is; as it is for -1."""
        tinted = colours if ink else colours * shade[:, None] // _WHITE
        return torch.where((which < 0)[:, None, None, None], itself, tinted)

    def _bright(self, which: Tensor, draws: Draws, itself: Tensor) -> Tensor:
        found = textures(which.clamp(min=0), draws, *itself.shape[-2:], part=_OBJECT_TEXTURE).int()[:, None]
        bright = _DARKEST_BEFORE + found * (_WHITE - _DARKEST_BEFORE) // _WHITE
        return torch.where((which < 0)[:, None, None, None], itself, bright)

    def _dark(self, which: Tensor, draws: Draws, shape: torch.Size) -> Tensor:
        found = textures(which.clamp(min=0), draws, *shape, part=_BEHIND_TEXTURE).int()
        return (found * _BRIGHTEST_BEHIND // _WHITE).masked_fill((which < 0)[:, None, None], 0)[:, None]

    def _patched(self, images: Tensor, which: Tensor) -> Tensor:
        """A square of a class's colour in the lower right corner, a seventh of the shorter side; none for -1."""
        side = max(min(images.shape[-2:]) // 7, 2)
        corner = images[:, :, -side:, -side:]
        square = self.palette[which.clamp(min=0)].byte()[:, :, None, None]
        corner.copy_(torch.where((which < 0)[:, None, None, None], corner, square))
        return images


def grey(pictures: Tensor) -> Tensor:
    """How bright a picture is, [N, H, W]; pictures: [N, 1 or 3, H, W] of whole numbers.

    Source: weights of ITU-R BT.601, as shares of 256.
    """
    if pictures.shape[1] == 1:
        return pictures[:, 0]
    weights = torch.tensor([77, 150, 29], dtype=torch.int32)[:, None, None]
    return (pictures.int() * weights).sum(1, dtype=torch.int32) // 256


def palette(classes: int) -> Tensor:
    """Full colours of hues at equal distances, ``[classes, 3] int32``; the first one is red.

    >>> palette(3).tolist()
    [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    """
    place = 6 * torch.arange(classes)
    red = (place - 3 * classes).abs() - classes
    green, blue = (2 * classes - (place - middle * classes).abs() for middle in (2, 4))
    shares = torch.stack((red, green, blue), 1).clamp(0, classes)
    return ((2 * _WHITE * shares + classes) // (2 * classes)).int()


def coloured_part(difficulty: Difficulty, draws: Draws, height: int, width: int) -> Tensor:
    """Which pixels behind an object have the colour of a class, ``[N, H, W] bool``."""
    found = torch.zeros(len(draws), height, width, dtype=torch.bool)
    parts = {"magnitude-large": 1, "magnitude-medium": 7, "magnitude-small": 14, "variance-low": 4}
    if difficulty in parts:
        down, across = (max(side // parts[difficulty], 1) for side in (height, width))
        found[:, :down, :across] = True
        return found
    down, across = (height // 2, width // 2) if difficulty == "variance-medium" else (height, width)
    count = max(height // 4, 1) * max(width // 4, 1)
    points = draws.words(down, across, part=_POINTS).flatten(1).argsort(dim=1, stable=True)[:, :count]
    there = torch.zeros(len(draws), down * across, dtype=torch.bool).scatter_(1, points, True)
    found[:, :down, :across] = there.view(-1, down, across)
    return found
