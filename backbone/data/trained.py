"""The data a saved network was trained on, as it saw them, and which of its outputs stands for which class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import Named, Row
from engram.backbone.data.load import Data, load, load_disjoint
from engram.backbone.data.options import PictureOptions
from engram.backbone.data.sets import Used
from engram.backbone.data.views import seen
from engram.backbone.errors import must
from engram.backbone.options import in_full
from engram.backbone.registry import Registry, resolve
from engram.backbone.saved.made import DataRef, Made


def reference(
    name: str, options: Mapping[str, Any], data: Data, validation: float, view: Named | None = None
) -> DataRef:
    """What a network that is trained on some data says of them; ``name`` and ``options`` are those of the data set."""
    source = in_full(Registry.discover(), "datasets", name, options)
    return DataRef(
        name=source.name,
        version=source.version,
        options=source.options,
        fingerprint=data.fingerprint,
        validation=validation,
        view=view,
        disjoint=data.disjoint,
        pictures=data.pictures,
        share=data.used.share,
        share_seed=data.used.seed,
    )


def load_as_trained(made: Made, *, root: Path, download: bool) -> tuple[Data, Tensor]:
    """The sets that a saved network was trained on, and its output for each of their classes, [K] int64.

    Raises:
        UserError: the data have changed, or their classes or shapes are not what the network knows.
    """
    ref = made.trained_on()
    find = load_disjoint if ref.disjoint else partial(load, used=used_of(ref))
    data = find(ref.name, ref.options, root=root, download=download, validation=ref.validation)
    require_trained_on(ref, data.fingerprint)
    data = as_seen(ref, data)
    remedy = "Train the network again, so that its file says how its images were made."
    require_shape(made, f"images of {ref.name}", data.in_shape, remedy)
    return data, outputs_of(made, data.classes)


def load_to_look_at(
    made: Made, dataset: str | None, options: Mapping[str, Any], *, root: Path, download: bool
) -> tuple[Data, Tensor]:
    """Sets to look at a saved network with, and its output for each of their classes, [K] int64.

    Args:
        made: the network.
        dataset, options: of the data; None: those that it was trained on.
        root, download: as everywhere.

    Raises:
        UserError: as `load_as_trained`.
    """
    if dataset is None:
        return load_as_trained(made, root=root, download=download)
    held = 0.0 if made.data is None else made.data.validation
    data = load(dataset, options, root=root, download=download, validation=held)
    require_shape(made, "the images", data.in_shape, of_such_images(made, dataset))
    return data, outputs_of(made, data.classes)


def used_of(ref: DataRef) -> Used:
    """Which of the training images a network was trained on."""
    return Used(ref.share, ref.share_seed)


def to_train_on(made: Made, data: Data, flag: str, dataset: str) -> Data | None:
    """Data for a saved network that goes on learning: their labels are its outputs, their classes what these stand for.

    Images of its own data are shown as it saw them. None where it does not know every class by name: its outputs mean
    something else, and what reads them has to start afresh.

    Args:
        flag: what asked for the network.
        dataset: the name of the data set.

    Raises:
        UserError: the images have another shape.
    """
    ref = made.data
    own = ref is not None and data.fingerprint == ref.fingerprint and not ref.disjoint  # else classes are others here
    data = as_seen(ref, data) if own and ref is not None else data
    require_shape(made, f"images for the network of {flag}", data.in_shape, of_such_images(made, dataset))
    outputs = _by_name(made, data.classes)
    if outputs is None:
        return None
    if outputs == list(range(len(made.classes))):
        return replace(data, classes=made.classes)
    table = torch.tensor(outputs)
    train, held, test = (part and seen(part, table) for part in (data.train, data.validation, data.test))
    assert train is not None and test is not None
    return replace(data, train=train, validation=held, test=test, classes=made.classes)


def require_shape(made: Made, what: str, got: Sequence[int], remedy: str) -> None:
    """Refuse images of another shape than those a network was trained on.

    Raises:
        UserError: ``what`` has the shape ``got``.
    """
    if made.in_shape != tuple(got):
        shapes = ["x".join(map(str, shape)) for shape in (made.in_shape, got)]
        raise must(what, f"{shapes[0]} like those trained on", shapes[1], remedy)


def of_such_images(made: Made, dataset: str) -> str:
    """How to get images of the shape that a network takes, where a data set has others."""
    channels, height, width = made.in_shape
    if channels not in (1, 3) or height != width:  # what picture files cannot become
        return "Choose a --dataset of such images."
    options = Registry.discover().options("datasets", dataset)
    if options is not None and issubclass(options, PictureOptions):
        return f"Pass --dataset.size {height} --dataset.channels {channels}."
    return f"Choose a --dataset of such images, such as folder:PATH --dataset.size {height}."


def require_trained_on(ref: DataRef, fingerprint: str) -> None:
    """Refuse other data under the name of those that a network was trained on.

    Raises:
        UserError: they have another fingerprint.
    """
    if fingerprint != ref.fingerprint:
        raise must(
            f"dataset {ref.name}",
            "the one the network was trained on",
            f"other bytes (sha256 {fingerprint[:12]}..., not {ref.fingerprint[:12]}...)",
            "Restore the data, or train again.",
        )


def as_seen(ref: DataRef, data: Data) -> Data:
    """The data as a network saw them: changed where the reference names a view."""
    view = ref.view
    if view is None:
        return data
    views = {name: where for plugin in Registry.discover().plugins.values() for name, where in plugin.views.items()}
    if view.name not in views:
        known = ", ".join(views) or "none"
        raise must("the view of a saved network's data", f"one that is installed ({known})", view.name, "Install it.")
    return resolve(views[view.name])(data, view.options)


def outputs_of(made: Made, classes: Sequence[str], *, by_number: bool = True) -> Tensor:
    """The network's output for each class of some data, [K] int64: by name, or by number where either has numbers only.

    One output may stand for several classes (`engram.backbone.saved.made.Made.meanings`).

    Args:
        by_number: False in training, where no bad score shows that classes of one number are not the same.

    Raises:
        UserError: a class of the data was not trained, or has an output in each of several tasks.
    """
    named = _by_name(made, classes)
    if named is not None:
        return torch.tensor(named)
    for name in classes:
        if len(outputs := _meaning(made, name)) > 1:
            what, remedy = f"the output for class {name!r}", "Score it on its own data: leave --dataset out."
            raise must(what, "one", f"one in each of {len(outputs)} tasks", remedy)
    trained = list(made.classes)
    fits = by_number and len(classes) <= len(trained) and not set(classes) & set(trained)
    if fits and (_only_numbered(trained) or _only_numbered(classes)):
        return torch.arange(len(classes))
    unknown = next((name for name in classes if name not in trained), classes[-1])
    known = ", ".join(trained[:10]) + (", ..." if len(trained) > 10 else "")
    raise must("the classes", f"among those trained on ({known})", repr(unknown), "Score data with these classes.")


def _by_name(made: Made, classes: Sequence[str]) -> list[int] | None:
    """The output for each class that has the class's name, or is known to stand for it; None if one is missing."""
    if set(classes) <= set(made.classes):
        return [made.classes.index(name) for name in classes]
    found = [_meaning(made, name) for name in classes]
    return [outputs[0] for outputs in found] if all(len(outputs) == 1 for outputs in found) else None


def _meaning(made: Made, name: str) -> list[int]:
    return [output for output, names in enumerate(made.meanings) if name in names]


def cautions(*of: Made | Data) -> list[Row]:
    """What to know of saved networks' answers and of the data they are scored on, as a table; mostly there is nothing.

    A network has cautions that does not answer as it did in its own trial.
    """
    return [{"caution": caution} for each in of for caution in each.cautions]


def _only_numbered(names: Sequence[str]) -> bool:
    """Whether a source without names for its classes made these up."""
    return list(names) == [str(number) for number in range(len(names))]
