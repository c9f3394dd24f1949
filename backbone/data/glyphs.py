"""Characters that nobody has written: made of random strokes by a seed, drawn by writers that differ."""

from __future__ import annotations

import numpy as np
import torch

from engram.backbone.data.columns import Column, indexed
from engram.backbone.data.fingerprint import of_tensors
from engram.backbone.data.glyph_shapes import IN_ALPHABET, characters
from engram.backbone.data.lots import lots
from engram.backbone.data.options import GlyphsOptions
from engram.backbone.data.pen import drawn
from engram.backbone.data.sets import MemorySplit, Source, Split
from engram.backbone.errors import must


def open_glyphs(
    path: str | None, options: GlyphsOptions | None, *, root: object, download: bool, budget_bytes: int
) -> Source:
    """Drawings ``[N, 1, SIZE, SIZE]``, white on black, of characters of which no two parts share an alphabet.

    Made here of whole numbers alone: the same ones for the same options, on every machine. The columns are
    Omniglot's: ``alphabet`` and ``character``, the two parts of the name of a class, and ``writer``, numbered from 1
    in every alphabet.

    Raises:
        UserError: the drawings need more memory than allowed.
    """
    o = options or GlyphsOptions()
    counts = {"train": o.classes, "validation": o.held_out, "test": o.held_out}
    size = sum(counts.values()) * o.drawings * o.size**2
    if size > budget_bytes:
        remedy = "Ask for fewer --dataset.classes or --dataset.drawings, or a smaller --dataset.size."
        raise must("glyphs", f"at most {budget_bytes / 2**30:.1f} GiB", f"{size / 2**30:.1f} GiB", remedy)
    keys = lots(np.array([o.seed], np.uint64), len(counts), 2)[0]
    parts: dict[str, Split] = {}
    classes: list[str] = []
    digested = {}
    for (part, count), key in zip(counts.items(), keys, strict=True):
        made = characters(key[:1], count)
        images = torch.from_numpy(drawn(made, key[1:], o.drawings, o.size)).unsqueeze(1)
        labels = torch.arange(len(classes), len(classes) + count).repeat_interleave(o.drawings)
        names = [(f"{part}{each // IN_ALPHABET:03d}", f"character{each % IN_ALPHABET:02d}") for each in range(count)]
        columns: dict[str, Column] = {
            **indexed(len(labels)),
            "alphabet": tuple(alphabet for alphabet, _ in names for _ in range(o.drawings)),
            "character": tuple(character for _, character in names for _ in range(o.drawings)),
            "writer": torch.arange(1, o.drawings + 1).repeat(count),
        }
        classes += [f"{alphabet}/{character}" for alphabet, character in names]
        parts[part], digested[part] = MemorySplit(images, labels, columns), (images, labels)
    return Source(parts, tuple(classes), of_tensors(classes, digested), disjoint=True)
