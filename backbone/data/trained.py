"""The data a saved network was trained on, as it saw them, and which of its outputs stands for which class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engram.backbone.contract import Row
from engram.backbone.data.load import Data, load
from engram.backbone.errors import must
from engram.backbone.registry import Registry, resolve


def load_as_trained(about: Mapping[str, Any], *, root: Path, download: bool) -> tuple[Data, Tensor]:
    """The sets of a saved network's manifest, and its output for each of their classes, [K] int64.

    Raises:
        UserError: the data have changed, or their classes or shapes are not what the network knows.
    """
    data = load(
        about["dataset"], about["dataset_options"], root=root, download=download, validation=about["validation"]
    )
    require_trained_on(about, data.fingerprint)
    data = as_seen(about, data)
    if list(about["in_shape"]) != list(data.in_shape):
        shapes = ["x".join(map(str, shape)) for shape in (about["in_shape"], data.in_shape)]
        remedy = "Train the network again, so that its file says how its images were made."
        raise must(f"images of {about['dataset']}", f"{shapes[0]} like those trained on", shapes[1], remedy)
    return data, outputs_of(about, data.classes)


def require_trained_on(about: Mapping[str, Any], fingerprint: str) -> None:
    """Refuse other data under the name of those that a network was trained on.

    Raises:
        UserError: they have another fingerprint.
    """
    if fingerprint != about["data_sha256"]:
        raise must(
            f"dataset {about['dataset']}",
            "the one the network was trained on",
            f"other bytes (sha256 {fingerprint[:12]}..., not {about['data_sha256'][:12]}...)",
            "Restore the data, or train again.",
        )


def as_seen(about: Mapping[str, Any], data: Data) -> Data:
    """The data as the network saw them: changed where its manifest names a view
    (`engram.backbone.contract.Plugin.views`).
    """
    view = about.get("view")
    if view is None:
        return data
    views = {name: where for plugin in Registry.discover().plugins.values() for name, where in plugin.views.items()}
    if view["name"] not in views:
        known = ", ".join(views) or "none"
        raise must(
            "the view of a saved network's data", f"one that is installed ({known})", view["name"], "Install it."
        )
    return resolve(views[view["name"]])(data, view["options"])


def outputs_of(about: Mapping[str, Any], classes: Sequence[str]) -> Tensor:
    """The network's output for each class of some data, [K] int64: by name, or by number where either has numbers only.

    One output may stand for several classes (``meanings`` in the manifest).

    Raises:
        UserError: a class of the data was not trained, or has an output in each of several tasks.
    """
    trained = list(about["classes"])
    if set(classes) <= set(trained):
        return torch.tensor([trained.index(name) for name in classes])
    found = {name: [k for k, names in enumerate(about.get("meanings", ())) if name in names] for name in classes}
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


def cautions(about: Mapping[str, Any], data: Data | None = None) -> list[Row]:
    """What to know of a saved network's answers and of the data it is scored on, as a table; mostly there is nothing.

    A network has cautions that does not answer as it did in its own trial.
    """
    return [{"caution": caution} for caution in (*about.get("cautions", ()), *(data.cautions if data else ()))]


def _only_numbered(names: Sequence[str]) -> bool:
    """Whether a source without names for its classes made these up."""
    return list(names) == [str(number) for number in range(len(names))]
