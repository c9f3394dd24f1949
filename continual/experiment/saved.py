"""What the file of a stream's network says about it: what its outputs mean, and how it saw its images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from engram.backbone.contract import Named, Scalar
from engram.backbone.data.load import Data
from engram.backbone.data.sets import Split
from engram.backbone.data.trained import reference
from engram.backbone.data.views import Joined
from engram.backbone.experiments.beginning import Beginning
from engram.backbone.saved.made import Made
from engram.continual.experiment.configs import StreamConfig
from engram.continual.experiment.stream import Part, Stream
from engram.continual.traits import said

VIEW = "continual.stream"
_OPTIONS = ("scenario", "tasks", "class_order", "head", "seed")
"""Of a stream; with the data they decide what an image looks like and which output it belongs to."""


def made_of(stream: Stream, beginning: Beginning) -> Made:
    """What the network of a stream says of itself.

    Its ``meanings`` list for every output the classes it stands for, where labels were changed; a view says how images
    or labels were. ``cautions`` say where its own trial answered by other means than all outputs of the linear layer.
    """
    c = stream.config
    plain = all(pair[0] == pair[1] for pair in zip(stream.groups, stream.outputs, strict=True))
    changed = not plain or stream.changes_images
    view = Named(VIEW, 1, {name: getattr(c, name) for name in _OPTIONS}) if changed else None
    return Made(
        backbone=beginning.backbone,
        adapters=tuple(beginning.adapters),
        head=beginning.head,
        classes=tuple(stream.names),
        in_shape=stream.in_shape,
        data=reference(c.dataset, c.dataset_options, stream.data, c.validation, view),
        meanings=() if plain else tuple(map(tuple, stream.meanings)),
        cautions=tuple(_cautions(stream)),
        incomplete=_incomplete(c),
    )


def _cautions(stream: Stream) -> Iterator[str]:
    c = stream.config
    if c.head == "multi" and len(stream) > 1:
        yield f"The outputs of all {len(stream)} tasks compete here; its own trial told it which task an image is of."
    by = [c.traits(name).answers_by for name in c.strategies]
    by += ["the nearest class mean"] if c.head == "prototype" else []
    if answered := next(filter(None, by), None):
        yield f"The linear layer answers here; in its own trial {answered} did."


def _incomplete(config: StreamConfig) -> str:
    gated = [said(name) for name in config.strategies if config.traits(name).needs_task]
    return f"the network of {gated[0]}, which computes with other weights or units for every task" if gated else ""


def view(data: Data, options: Mapping[str, Scalar]) -> Data:
    """The images of all tasks of a stream, as each of them shows them; labels are outputs. Changed as they are read."""
    config: Any = dict(options)
    stream = Stream(StreamConfig(**config), data, "cpu")

    def joined(part: Part) -> Split:
        return Joined([stream.shown(index, part) for index in range(len(stream))])

    return replace(
        data,
        train=joined("train"),
        validation=None if data.validation is None else joined("validation"),
        test=joined("test"),
        classes=stream.names,
        in_shape=stream.in_shape,
        mean=stream.mean,
        std=stream.std,
    )
