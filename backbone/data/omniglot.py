"""Omniglot: 1,623 characters of 50 alphabets, drawn by 20 people each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from engram.backbone.data.class_folders import pictures_of
from engram.backbone.data.columns import Column, Columns
from engram.backbone.data.folders import labels_of
from engram.backbone.data.options import OmniglotOptions
from engram.backbone.data.pictures import Labelled, open_pictures
from engram.backbone.data.places import missing_omniglot, omniglot_drawings, omniglot_folders, omniglot_parts
from engram.backbone.data.quarter_turns import turned
from engram.backbone.data.sets import Source
from engram.backbone.data.splits import stratified
from engram.backbone.data.torchvision_sets import download_from_torchvision

_NAME = re.compile(r"\d+_(\d+)")  # of a file: the character's number and its writer's


def open_omniglot(
    path: str | None, options: OmniglotOptions | None, *, root: Path, download: bool, budget_bytes: int
) -> Source:
    """Drawings of 105x105, 20 a character; by default the test set is a fixed fifth of every character.

    The published background and evaluation sets share no character, so neither can test a classifier trained on the
    other; for one they are one set. Found are ``images_background*`` and ``images_evaluation`` in
    ``ROOT/omniglot-py``, ``ROOT/omniglot*`` or ROOT; a drawing that stands in several of them counts once.

    Columns: ``alphabet`` and ``character``, the two parts of the name of a class, and ``writer``, numbered from 1. The
    writers of one character are those of all of its alphabet.

    Raises:
        UserError: the set is not there, or has no characters for a part of the split.

    Source: Lake, Salakhutdinov, Tenenbaum 2015, "Human-level concept learning through probabilistic program induction".
    """
    o = options or OmniglotOptions()
    if lost := missing_omniglot("omniglot", "Omniglot", root):
        download_from_torchvision("Omniglot", root, lost, download)
    if o.split == "within" and o.background is None:
        parts = _within(root)
    else:
        parts = omniglot_parts(root, o.split, o.background)
    classes, labels = labels_of(parts)
    implied, told = _columns(parts)
    known = Labelled(labels, classes, told, implied, disjoint=o.split != "within")
    found = open_pictures(pictures_of(parts), known, o, budget_bytes)
    return turned(found) if o.split == "vinyals" else found


def _within(root: Path) -> dict[str, dict[str, list[Path]]]:
    """All characters in both parts."""
    by_class = omniglot_drawings(omniglot_folders(root))
    labels = torch.tensor([label for label, paths in enumerate(by_class.values()) for _ in paths])
    held = set(stratified(labels, 0.2, salt=1)[1].tolist())
    parts: dict[str, dict[str, list[Path]]] = {"train": {}, "test": {}}
    position = 0
    for name, paths in by_class.items():
        for drawing in paths:
            parts["test" if position in held else "train"].setdefault(name, []).append(drawing)
            position += 1
    return parts


def _columns(parts: Mapping[str, Mapping[str, list[Path]]]) -> tuple[Columns, Columns]:
    """What follows from the names of characters and files, and what only the files' names tell."""
    drawings = [(name, path) for part in parts.values() for name, paths in part.items() for path in paths]
    names = [name.partition("/") for name, _ in drawings]
    found: dict[str, Column] = {
        "alphabet": tuple(alphabet for alphabet, _, _ in names),
        "character": tuple(character for _, _, character in names),
    }
    read = [match for _, path in drawings if (match := _NAME.fullmatch(path.stem))]
    if len(read) < len(drawings):
        return found, {}
    writers = [int(match[1]) for match in read]
    of_each: dict[str, list[int]] = {}
    for (name, _), writer in zip(drawings, writers, strict=True):
        of_each.setdefault(name, []).append(writer)
    published = all(sorted(held) == list(range(1, len(held) + 1)) for held in of_each.values())  # in the files' order
    column: Columns = {"writer": torch.tensor(writers)}
    return ({**found, **column}, {}) if published else (found, column)
