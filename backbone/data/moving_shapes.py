"""Shapes that move: the class is the order of their movements alone, and no still frame carries any of it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from engram.backbone.data.event_options import MovingShapesOptions
from engram.backbone.data.fingerprint import of_tensors
from engram.backbone.data.sets import Source, in_memory
from engram.backbone.errors import must

DIRECTIONS = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""Up, right, down, left: (y, x) of a step."""
ORDERS = tuple((0, *rest) for rest in permutations((1, 2, 3)))
"""The six cyclic orders of four directions, each written from "up"."""
CLASSES = tuple("-".join("URDL"[direction] for direction in order) for order in ORDERS)
MAX_STEP, MAX_EVENTS = 2, 3
_SHAPES = 4
_AT_ONCE = 500  # recordings drawn at a time, which bounds the memory it takes


@dataclass(frozen=True)
class Scenes:
    """What N recordings show, drawn without regard to their classes; each field is ``[N] int64`` but for ``events``.

    ``shape`` 0..3: disc, square, diamond, cross; ``radius`` pixels; ``y`` and ``x``, the middle of every stroke;
    ``step`` pixels per frame; ``events: [N, H, W] int8`` that a passing edge makes in each pixel (its contrast over
    the threshold there); ``first`` 0..3, the place in the class's order at which the recording begins.
    """

    shape: Tensor
    radius: Tensor
    y: Tensor
    x: Tensor
    step: Tensor
    events: Tensor
    first: Tensor


def open_moving_shapes(
    path: str | None, options: MovingShapesOptions | None, *, root: object, download: bool, budget_bytes: int
) -> Source:
    """Recordings ``[N, T, 2, SIZE, SIZE]`` of six classes, made here; the same ones for the same options.

    A bright shape makes strokes in four directions through one place, over and over, on a torus. The class is the
    cyclic order of the directions; where in it a recording begins is drawn by lot. So at every time step every
    direction, place and appearance is as likely in one class as in another, and a recording of one class has the same
    frames, in another order, as an equally likely recording of any other class: what does not use the order of frames
    cannot be better than chance.

    Raises:
        UserError: ``frames`` is no multiple of ``4 * stroke``, or the recordings need more memory than allowed.
    """
    o = options or MovingShapesOptions()
    cycle = len(DIRECTIONS) * o.stroke
    if o.frames % cycle:
        remedy = f"Take {max(round(o.frames / cycle), 1) * cycle}."
        raise must("--dataset.frames", f"a multiple of {cycle}, 4 * --dataset.stroke", o.frames, remedy)
    tests = max(o.samples // 4, len(CLASSES))
    size = (o.samples + tests) * o.frames * 2 * o.size**2
    if size > budget_bytes:
        got = f"{size / 2**30:.1f} GiB"
        remedy = "Ask for fewer --dataset.samples, or a smaller --dataset.size."
        raise must("moving-shapes", f"at most {budget_bytes / 2**30:.1f} GiB", got, remedy)
    splits = {
        name: _recordings(count, part, o) for part, (name, count) in enumerate([("train", o.samples), ("test", tests)])
    }
    digest = of_tensors(CLASSES, splits)
    return Source(in_memory(splits), CLASSES, digest)


def _recordings(count: int, part: int, options: MovingShapesOptions) -> tuple[Tensor, Tensor]:
    """Frames ``[count, T, 2, H, W] uint8`` and labels ``[count] int64`` of the train (0) or test (1) set."""
    random = np.random.default_rng([options.seed, part])
    labels = torch.arange(count) % len(CLASSES)
    frames = torch.empty(count, options.frames, 2, options.size, options.size, dtype=torch.uint8)
    for start in range(0, count, _AT_ONCE):
        span = slice(start, start + _AT_ONCE)
        made = render(draw(len(labels[span]), options.size, random), labels[span], options)
        if options.order == "shuffled":
            lots = torch.from_numpy(random.random(made.shape[:2]))
            made = made[torch.arange(len(made))[:, None], lots.argsort(1)]
        frames[span] = made
    return frames, labels


def draw(count: int, size: int, random: np.random.Generator) -> Scenes:
    """Draw scenes; every value is uniform and independent of the others."""

    def uniform(low: int, high: int) -> Tensor:
        return torch.from_numpy(random.integers(low, high, count, endpoint=True))

    return Scenes(
        shape=uniform(0, _SHAPES - 1),
        radius=uniform(max(size // 8, 1), max(size // 5, 1)),
        y=uniform(0, size - 1),
        x=uniform(0, size - 1),
        step=uniform(1, MAX_STEP),
        events=torch.from_numpy(random.integers(1, MAX_EVENTS, (count, size, size), np.int8, endpoint=True)),
        first=uniform(0, len(DIRECTIONS) - 1),
    )


def render(scenes: Scenes, labels: Tensor, options: MovingShapesOptions) -> Tensor:
    """The events of scenes shown in the order of their classes.

    Args:
        scenes: N of them.
        labels: ``[N] int64``, positions in `ORDERS`.
        options: ``frames``, ``stroke`` and ``size``.

    Returns:
        ``[N, T, 2, H, W] uint8`` counts of events, darker (0) and brighter (1).
    """
    strokes = torch.stack([_stroke(scenes, direction, options) for direction in DIRECTIONS], 1)
    number = torch.arange(options.frames // options.stroke)
    place = (scenes.first[:, None] + number) % len(DIRECTIONS)
    directions = torch.tensor(ORDERS)[labels[:, None], place]
    shown = strokes[torch.arange(len(labels))[:, None], directions]
    return shown.flatten(1, 2)


def _stroke(scenes: Scenes, direction: tuple[int, int], options: MovingShapesOptions) -> Tensor:
    """The events ``[N, STROKE, 2, H, W] uint8`` of one movement, whose middle is the scene's place."""
    offsets = torch.arange(options.stroke + 1) - options.stroke // 2
    path = scenes.step[:, None] * offsets
    pictures = _pictures(
        scenes, scenes.y[:, None] + direction[0] * path, scenes.x[:, None] + direction[1] * path, options
    )
    change = pictures.diff(dim=1) * scenes.events[:, None]
    return torch.stack([(-change).clamp(min=0), change.clamp(min=0)], 2).to(torch.uint8)


def _pictures(scenes: Scenes, y: Tensor, x: Tensor, options: MovingShapesOptions) -> Tensor:
    """``[N, K, H, W] int8``, 1 where a shape centred at ``y, x: [N, K]`` covers the pixel of the torus."""
    pixels, half = torch.arange(options.size), options.size // 2
    down = ((pixels - y[..., None] + half) % options.size - half).abs()[..., :, None]
    right = ((pixels - x[..., None] + half) % options.size - half).abs()[..., None, :]
    r = scenes.radius[:, None, None, None]
    square = torch.maximum(down, right) <= r
    bar = torch.minimum(down, right) <= r // 3
    shapes = (down**2 + right**2 <= r**2, square, down + right <= r, square & bar)
    shape = scenes.shape[:, None, None, None]
    covered = torch.zeros_like(square)
    for number, mask in enumerate(shapes):
        covered |= mask & (shape == number)
    return covered.to(torch.int8)
