"""Corrupted images: ``corrupt(images, places, kind, severity, seed=0) -> images``.

What is drawn by lot is a pure function of the seed, the image's place, the kind and the severity. So an image looks the
same in whatever batch and order it comes, and two networks are shown the very same pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from engram.backbone.data.corruptions.blur import gaussian_blur, motion_blur
from engram.backbone.data.corruptions.draws import Draws
from engram.backbone.data.corruptions.elastic import elastic
from engram.backbone.data.corruptions.jpeg import jpeg
from engram.backbone.data.corruptions.noise import gaussian_noise, impulse_noise, shot_noise
from engram.backbone.data.corruptions.occlusion import bars, blobs, cutout
from engram.backbone.data.corruptions.options import KINDS, SEVERITIES, Corruption
from engram.backbone.data.corruptions.pixelate import pixelate
from engram.backbone.data.corruptions.tone import brightness, contrast
from engram.backbone.errors import must
from engram.backbone.seeding import derive

_VALUES = 2**18  # of images at once: what is computed of them stays in the processor's cache

_BY_KIND: Mapping[Corruption, Callable[[Tensor, int, Draws], Tensor]] = {
    "gaussian-noise": gaussian_noise,
    "shot-noise": shot_noise,
    "impulse-noise": impulse_noise,
    "gaussian-blur": gaussian_blur,
    "motion-blur": motion_blur,
    "brightness": brightness,
    "contrast": contrast,
    "elastic": elastic,
    "pixelate": pixelate,
    "jpeg": jpeg,
    "bars": bars,
    "blobs": blobs,
    "cutout": cutout,
}


def corrupt(images: Tensor, places: Tensor, kind: Corruption, severity: int, seed: int = 0) -> Tensor:
    """Corrupted images, ``[N, C, H, W] uint8`` as they come, on the CPU.

    Noise, blur, brightness, contrast and elastic deformation end in whole grey levels as the published files do, by
    leaving out the fraction; motion blur, pixelate and jpeg by rounding, as the software that made these does.

    Args:
        images: of 1 or 3 channels, on any device: they are worked on by the CPU, so that they are the same everywhere.
        places: ``[N] int64`` on the CPU: each image's place in its part of the source (``original_index``).
        kind: one of `KINDS`.
        severity: 1 to 5.
        seed: in [0, 2**31).

    Raises:
        UserError: there is no such kind or severity, or the images have other channels.

    Source: the constants are those of CIFAR-10-C, Hendrycks and Dietterich 2019 (arXiv 1903.12261); occlusions are the
    protocol ``engram-occlusion/1``.
    """
    require(kind, severity, images.shape[1])
    number = derive(seed, f"corruption/{kind}", severity)
    at_once = max(1, _VALUES // max(1, images[:1].numel()))
    parts = zip(images.cpu().split(at_once), places.split(at_once), strict=True)
    found = [_BY_KIND[kind](part, severity, Draws.of(number, where)) for part, where in parts]
    return torch.cat(found) if found else images.cpu()


def require(kind: str, severity: int, channels: int) -> None:
    """Refuse what cannot be done.

    Raises:
        UserError: as `corrupt`.
    """
    if kind not in _BY_KIND:
        raise must("the kind of corruption", f"one of {', '.join(KINDS)}", kind, "Choose one of these.")
    if severity not in SEVERITIES:
        raise must("the severity of a corruption", "1, 2, 3, 4 or 5", severity, "Choose one of these.")
    if channels not in (1, 3):
        raise must("pictures to corrupt", "of 1 or 3 channels", channels, "Choose another dataset.")
