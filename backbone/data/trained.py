"""The data a saved network was trained on, as it saw them, and which of its outputs stands for which class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import Named, Row
from engram.backbone.data.load import Data, load
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
    )


def load_as_trained(made: Made, *, root: Path, download: bool) -> tuple[Data, Tensor]:
    """The sets that a saved network was trained on, and its output for each of their classes, [K] int64.

    Raises:
        UserError: the data have changed, or their classes or shapes are not what the network knows.
    """
    ref = made.trained_on()
    data = load(ref.name, ref.options, root=root, download=download, validation=ref.validation)
    require_trained_on(ref, data.fingerprint)
    data = as_seen(ref, data)
    if made.in_shape != tuple(data.in_shape):
        shapes = ["x".join(map(str, shape)) for shape in (made.in_shape, data.in_shape)]
        remedy = "Train the network again, so that its file says how its images were made."
        raise must(f"images of {ref.name}", f"{shapes[0]} like those trained on", shapes[1], remedy)
    return data, outputs_of(made, data.classes)


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


def outputs_of(made: Made, classes: Sequence[str]) -> Tensor:
    """The network's output for each class of some data, [K] int64: by name, or by number where either has numbers only.

    One output may stand for several classes (`engram.backbone.saved.made.Made.meanings`).

    Raises:
        UserError: a class of the data was not trained, or has an output in each of several tasks.
    """
    trained = list(made.classes)
    if set(classes) <= set(trained):
        return torch.tensor([trained.index(name) for name in classes])
    found = {name: [k for k, names in enumerate(made.meanings) if name in names] for name in classes}
    if all(len(outputs) == 1 for outputs in found.values()):
        return torch.tensor([found[name][0] for name in classes])
    several = next((name for name, outputs in found.items() if len(outputs) > 1), None)
    if several is not None:
        what, remedy = f"the output for class {several!r}", "Score it on its own data: leave --dataset out."
        raise must(what, "one", f"one in each of {len(found[several])} tasks", remedy)
    fits = len(classes) <= len(trained) and not set(classes) & set(trained)
    if fits and (_only_numbered(trained) or _only_numbered(classes)):
        return torch.arange(len(classes))
    unknown = next((name for name in classes if name not in trained), classes[-1])
    known = ", ".join(trained[:10]) + (", ..." if len(trained) > 10 else "")
    raise must("the classes", f"among those trained on ({known})", repr(unknown), "Score data with these classes.")


def cautions(*of: Made | Data) -> list[Row]:
    """What to know of saved networks' answers and of the data they are scored on, as a table; mostly there is nothing.

    A network has cautions that does not answer as it did in its own trial.
    """
    return [{"caution": caution} for each in of for caution in each.cautions]


def _only_numbered(names: Sequence[str]) -> bool:
    """Whether a source without names for its classes made these up."""
    return list(names) == [str(number) for number in range(len(names))]
