"""A simulated event camera in front of which a still picture makes three small saccades.

Every number in it is a whole one that float32 holds exactly, so the same picture gives the same events on every
processor and device. That is why events can be made when they are needed, again in every epoch, and not be stored.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engram.backbone.data.event_options import SaccadesOptions
from engram.backbone.data.fingerprint import Fingerprint
from engram.backbone.errors import must

_UNIT = 2**16
"""Logarithms are counted in 1 / _UNIT."""
_BRIGHTEST = 16 * 255  # a grey level is the sum of four neighbours, in sixteenths
_LUMA = (77, 150, 29)  # of 256: ITU-R BT.601


class Camera:
    """Pictures ``[B, C, h, w] uint8`` -> events ``[B, T, 2, h + travel, w + travel] uint8``, darker (0), brighter (1).

    An event is made whenever the logarithm of a pixel's intensity is a threshold away from where it was at the pixel's
    last event. Thresholds differ from pixel to pixel as they do on a chip. Pictures are seen before a black ground, and
    move by at most half a pixel between two looks.

    Source: Lichtsteiner, Posch, Delbruck 2008, "A 128x128 120 dB 15 us latency asynchronous temporal contrast vision
    sensor" (the pixel); Orchard et al. 2015, arXiv 1507.07629 (the saccades: along a triangle, as tall as it is wide).
    """

    def __init__(self, in_shape: tuple[int, int, int], options: SaccadesOptions) -> None:
        """``in_shape`` of the pictures.

        Raises:
            UserError: they are neither grey nor of three colours, or there are more frames than looks.
        """
        channels, height, width = in_shape
        if channels not in (1, len(_LUMA)):
            raise must("pictures for saccades", "of 1 or 3 channels", channels, "Choose another dataset.")
        o, looks = options, 6 * options.travel
        if o.frames > looks:
            remedy = f"Take at most {looks}, or let it travel further."
            raise must("--dataset.frames", "at most 6 * --dataset.travel", o.frames, remedy)
        self.frames, self.travel = o.frames, o.travel
        self.picture = (o.size or height, o.size or width)
        self.out_shape = (2, self.picture[0] + o.travel, self.picture[1] + o.travel)
        self._resize = None
        if self.picture != (height, width):
            self._resize = tuple(_weights(old, new) for old, new in zip((height, width), self.picture, strict=True))
        grey = np.arange(_BRIGHTEST + 1) / _BRIGHTEST
        self._logarithm = torch.from_numpy(np.rint(np.log(o.dark + grey) * _UNIT).astype(np.float32))
        spread = np.random.default_rng(0).standard_normal(self.out_shape[1:]).clip(-3, 3)
        threshold = np.rint(o.threshold * (1 + o.mismatch * spread) * _UNIT).clip(min=1)
        self._threshold = torch.from_numpy(threshold.astype(np.float32))
        self.path = saccades(o.travel)

    def __call__(self, pictures: Tensor) -> Tensor:
        logarithm, threshold = (table.to(pictures.device) for table in (self._logarithm, self._threshold))
        grey = self._grey(pictures)
        between = {
            fraction: logarithm[_between(grey, *fraction)] for fraction in {(y % 4, x % 4) for y, x in self.path}
        }
        shape = (len(pictures), *self.out_shape[1:])
        last = torch.empty(shape, device=pictures.device)
        now = torch.empty_like(last)
        self._look(now, between, logarithm[0], 0)
        last.copy_(now)
        frames = torch.empty(len(pictures), self.frames, *self.out_shape, dtype=torch.uint8, device=pictures.device)
        looks, first = len(self.path) - 1, 1
        for frame in range(self.frames):
            stop = 1 + -(-(frame + 1) * looks // self.frames)
            before, crossings = last.clone(), torch.zeros_like(last)
            for look in range(first, stop):
                self._look(now, between, logarithm[0], look)
                steps = now.sub_(last).div_(threshold).trunc_()
                last.addcmul_(steps, threshold)
                crossings += steps.abs_()
            net = before.sub_(last).neg_().div_(threshold)  # brighter minus darker, exactly
            frames[:, frame, 0] = ((crossings - net) / 2).clamp_(max=255)
            frames[:, frame, 1] = ((crossings + net) / 2).clamp_(max=255)
            first = stop
        return frames

    def _grey(self, pictures: Tensor) -> Tensor:
        """``[B, h, w] int32`` of 0..255."""
        x = pictures.int()
        if x.shape[1] == len(_LUMA):
            x = (x * torch.tensor(_LUMA, device=x.device, dtype=x.dtype)[:, None, None]).sum(1, keepdim=True) // 256
        x = x[:, 0].int()
        if self._resize is None:
            return x
        down, across = (weights.to(x.device) for weights in self._resize)
        return (down @ x.double() @ across.T + (0.5 + 1e-6)).floor().int()  # halves go up, whatever the last bits are

    def _look(self, now: Tensor, between: dict[tuple[int, int], Tensor], black: Tensor, look: int) -> None:
        """Write into ``now`` what the sensor sees at one place of the path."""
        y, x = self.path[look]
        seen = between[y % 4, x % 4]
        now.fill_(black)
        view = now[:, y // 4 : y // 4 + seen.shape[1], x // 4 : x // 4 + seen.shape[2]]
        view.copy_(seen[:, : view.shape[1], : view.shape[2]])  # at the far end the last row and column are black

    def identify(self, digest: Fingerprint) -> None:
        """Add everything that events depend on."""
        digest.array(self._logarithm.numpy())
        digest.array(self._threshold.numpy())
        digest.array(np.array([*self.path, (self.frames, 0), self.picture]))


def saccades(travel: int) -> tuple[tuple[int, int], ...]:
    """Where the picture is at each look, (y, x) in quarters of a pixel: down, up again, and back.

    >>> saccades(1)
    ((0, 0), (2, 1), (4, 2), (2, 3), (0, 4), (0, 2), (0, 0))
    """
    path = [(0, 0)]
    for y, x in ((2, 1), (-2, 1), (0, -2)):
        path += [(path[-1][0] + y * step, path[-1][1] + x * step) for step in range(1, 2 * travel + 1)]
    return tuple(path)


def _between(grey: Tensor, y: int, x: int) -> Tensor:
    """Pictures moved down and right by ``y`` and ``x`` quarters of a pixel, ``[B, h + 1, w + 1]`` of 0..4080."""
    padded = torch.nn.functional.pad(grey, (1, 1, 1, 1))
    rows = (4 - y) * padded[:, 1:] + y * padded[:, :-1]
    return (4 - x) * rows[:, :, 1:] + x * rows[:, :, :-1]


def _weights(old: int, new: int) -> Tensor:
    """``[new, old] float64``: linear interpolation when enlarging, a triangle as wide as its share when shrinking."""
    scale = old / new
    middles = (np.arange(new) + 0.5) * scale - 0.5
    weights = np.maximum(1 - np.abs(np.arange(old) - middles.clip(0, old - 1)[:, None]) / max(scale, 1), 0)
    return torch.from_numpy(weights / weights.sum(1, keepdims=True))
