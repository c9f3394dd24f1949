"""What the file of a stream's network says about it: what its outputs mean, and how it saw its images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engram.backbone.contract import Scalar
from engram.backbone.data.load import Data
from engram.backbone.data.sets import Split
from engram.backbone.data.views import Joined
from engram.continual.experiment.configs import BY_MEANS, StreamConfig
from engram.continual.streams.stream import Part, Stream

VIEW = "continual.stream"
_OPTIONS = ("scenario", "tasks", "class_order", "head", "seed")
"""Of a stream; with the data they decide what an image looks like and which output it belongs to."""


def meaning(stream: Stream) -> dict[str, Any]:
    """Entries of the manifest: ``classes``, ``meanings`` and, where the images or labels were changed, ``view``.

    ``meanings`` lists for every output the classes it stands for. ``cautions`` say where its own trial answered by
    other means than all outputs of the linear layer.
    """
    c = stream.config
    about: dict[str, Any] = {"classes": list(stream.names), "in_shape": list(stream.in_shape)}
    plain = all(pair[0] == pair[1] for pair in zip(stream.groups, stream.outputs, strict=True))
    if not plain:
        about["meanings"] = stream.meanings
    if not plain or stream.changes_images:
        about["view"] = {"name": VIEW, "options": {name: getattr(c, name) for name in _OPTIONS}}
    cautions = []
    if c.head == "multi" and len(stream) > 1:
        cautions.append(
            f"The outputs of all {len(stream)} tasks compete here; its own trial told it which task an image is of."
        )
    if c.head == "prototype" or any(name in BY_MEANS for name in c.strategies):
        cautions.append("The linear layer answers here; in its own trial the nearest class mean did.")
    if cautions:
        about["cautions"] = cautions
    return about


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
