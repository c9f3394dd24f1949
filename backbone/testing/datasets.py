"""What every data set must keep to."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engram.backbone.contract import KnownData
from engram.backbone.data.columns import INDEX, numbered
from engram.backbone.data.sets import Source, Split
from engram.backbone.testing.case import require


def check_dataset(open_source: Callable[[], Source], known: Callable[[], KnownData | None] = lambda: None) -> None:
    """All of it; ``open_source`` reads the set once more every time, ``known`` is what is known before that."""
    source = open_source()
    if (told := known()) is not None:
        is_what_is_known(source, told)
    require(next(iter(source.parts), None) == "train", "the first part of a source is train")
    require(len(set(source.classes)) == len(source.classes) > 1, "the classes are two or more different names")
    require(len(source.fingerprint) == 64, "the fingerprint is a sha256, in hex")
    require(open_source().fingerprint == source.fingerprint, "a set that is read again has the same fingerprint")
    for part in source.parts.values():
        _check_part(part, len(source.classes))
    shapes = {(part.in_shape, part.frames) for part in source.parts.values()}
    require(len(shapes) == 1, f"all parts have images of one shape; got {shapes}")
    if source.keys is not None:
        require(len(source.keys) == sum(map(len, source.parts.values())), "keys are one for each image of all parts")


def is_what_is_known(source: Source, known: KnownData) -> None:
    """What is known of a set before it is read is so."""
    columns = {name: each for name, each in source.train.columns.items() if name != INDEX}
    unsaid = set(columns) - set(known.columns)
    require(not unsaid, f"what is known names all columns; {', '.join(sorted(unsaid))} it does not")
    for name, values in known.columns.items():
        if values is not None:
            found = numbered(columns[name])[1]
            require(values == found, f"the values of {name} are {', '.join(found)}; {', '.join(values)} were known")
    for name, values in known.others.items():
        parts = [numbered(part.columns[name])[1] for part in source.parts.values() if part is not source.train]
        require(
            {*values} == {each for part in parts for each in part}, f"the values of {name} in other parts are known"
        )


def _check_part(part: Split, classes: int) -> None:
    labels = part.labels
    require(labels.dtype == torch.int64 and len(labels) == len(part) > 0, "labels are [N] int64")
    require(int(labels.min()) >= 0 and int(labels.max()) < classes, "a label is the number of a class")
    for name, column in part.columns.items():
        require(len(column) == len(part), f"column {name} has a value for every image")
    require("original_index" in part.columns, "a part says of every image its place in it: original_index")
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))[:10]
    order = torch.cat((order, order[:1]))  # repeats are allowed
    images, shown, positions = _gathered(part, order)
    require(torch.equal(positions, order), "batches yield the positions of their images")
    require(torch.equal(shown, labels[order]), "batches yield the labels at their positions")
    shape = [*part.in_shape] if part.frames is None else [part.frames, *part.in_shape]
    require(images.dtype == torch.uint8 and list(images.shape[1:]) == shape, f"images are uint8 of shape {shape}")
    again = _gathered(part, order)[0]
    require(torch.equal(again, images), "an image is the same every time")
    chosen = part.select(order)
    require(torch.equal(chosen.labels, labels[order]), "select keeps the order")
    require(torch.equal(_gathered(chosen, torch.arange(len(order)))[0], images), "select keeps the images")
    require(all(len(chosen.columns[name]) == len(order) for name in part.columns), "columns follow their images")


def _gathered(part: Split, order: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    images, labels, positions = zip(*part.batches(order, 4, "cpu"), strict=True)
    return torch.cat(images), torch.cat(labels), torch.cat(positions)
