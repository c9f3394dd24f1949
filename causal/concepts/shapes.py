"""The data set ``concept-shapes``: shapes made here, whose looks are concepts and whose class four of these make."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import torch

from engram.backbone.data.columns import CONCEPTS, Columns, identify, indexed
from engram.backbone.data.fingerprint import Fingerprint
from engram.backbone.data.sets import MemorySplit, Source, Split
from engram.causal.concepts.options import ConceptShapesOptions

SIDE = 20
WORDS = (("square", "round"), ("small", "large"), ("solid", "hollow"), ("dim", "bright"))
"""What the class is called without and with each of the first concepts."""
NAMES = (*(there for _, there in WORDS), "left", "high")
CLASSES = tuple(" ".join(words) for words in product(*WORDS))
RADII = ((3, 4), (5, 6))
"""Of small and large shapes, in pixels: one or the other by lot."""
RIM = 2
"""Pixels of the edge of what is hollow."""
GROUND, DIM, BRIGHT = 0.2, 0.5, 0.8
"""Grey of the ground, and of shapes, where white is 1."""
ASIDE = (1, 3)
"""From how far to how far the middle of a shape is beside that of the picture, both ways, in pixels."""
_AT_ONCE = 1000  # pictures drawn at a time


def open_concept_shapes(
    path: str | None, options: ConceptShapesOptions | None, *, root: Path, download: bool, budget_bytes: int
) -> Source:
    """Grey pictures ``[N, 1, 20, 20]`` of 16 classes, made here; the same ones for the same options.

    Each has six properties: the shape is round (or square), large (or small), hollow (or solid), bright (or dim), and
    lies to the left (or right) and high (or low). The first four make the class, of which all are equally common; the
    others are drawn by fair coins. The column ``concepts``, ``[N, known] bool``, has the first ``known`` of them.
    """
    o = options or ConceptShapesOptions()
    digest, parts = Fingerprint(), dict[str, Split]()
    digest.words(CLASSES)
    for number, (name, count) in enumerate([("train", o.samples), ("test", o.samples // 4)]):
        random = np.random.default_rng([o.seed, number])
        labels = random.permutation(count) % len(CLASSES)
        of_class = labels[:, None] >> np.arange(3, -1, -1) & 1
        present = np.concatenate([of_class, random.integers(0, 2, (count, 2))], 1).astype(bool)
        drawn = [_pictures(each, o.noise, random) for each in np.array_split(present, -(-count // _AT_ONCE))]
        images = torch.from_numpy(np.concatenate(drawn))
        classes = torch.from_numpy(labels)
        columns: Columns = {**indexed(count), CONCEPTS: torch.from_numpy(present[:, : o.known]).contiguous()}
        for each in (images, classes):
            digest.array(each.numpy())
        identify(digest, {CONCEPTS: columns[CONCEPTS]})
        parts[name] = MemorySplit(images, classes, columns)
    return Source(parts, CLASSES, digest.hexdigest())


def _pictures(present: np.ndarray, noise: float, random: np.random.Generator) -> np.ndarray:
    """``[N, 1, SIDE, SIDE] uint8`` of these properties, ``[N, 6] bool``."""
    count = len(present)
    round_, _, hollow, bright, left, high = present.T[..., None, None]
    radius = np.array(RADII)[present[:, 1].astype(int), random.integers(0, 2, count)][:, None, None]
    aside, above = random.integers(ASIDE[0], ASIDE[1] + 1, (2, count, 1, 1))
    pixels, middle = np.arange(SIDE), (SIDE - 1) / 2
    down = np.abs(pixels[:, None] - (middle + np.where(high, -above, above)))
    beside = np.abs(pixels[None, :] - (middle + np.where(left, -aside, aside)))
    away = np.where(round_, np.hypot(down, beside), np.maximum(down, beside))
    covered = (away <= radius) & ~(hollow & (away <= radius - RIM))
    grey = np.where(covered, np.where(bright, BRIGHT, DIM), GROUND)
    grey = grey + noise * random.standard_normal(grey.shape)
    return np.clip(np.rint(grey * 255), 0, 255).astype(np.uint8)[:, None]
