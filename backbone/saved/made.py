"""What a saved network says of itself: what it is made of, what its outputs mean, what it was trained on; no torch.

``model.json`` is written and read here alone. It names everything the network is made of with its version and all its
options: a default that changes later changes no saved network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, TypeVar

from pydantic import PositiveInt, TypeAdapter, ValidationError

from engram.backbone.contract import Named
from engram.backbone.errors import must
from engram.backbone.saved import format1

FORMAT = 2
"""Of the files written here."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DataRef:
    """The data a network was trained on.

    ``name`` is the data set's as it was given (``folder:PATH``), with its ``version`` and all its ``options``.
    ``fingerprint`` is the sha256 of its bytes, ``validation`` the share of its training images that was held out.
    ``view`` says how the network saw the data where not as they are (`engram.backbone.contract.Plugin.views`).
    ``disjoint``: its sets have no class in common (`engram.backbone.data.load.load_disjoint`).
    ``pictures`` is the fingerprint of the set whose pictures they are, changed; "" where they are its own.
    ``share`` of the training images were used, drawn by ``share_seed`` (`engram.backbone.data.sets.Used`).
    """

    name: str
    version: int = 1
    options: Mapping[str, Any]
    fingerprint: str
    validation: float
    view: Named | None = None
    disjoint: bool = False
    pictures: str = ""
    share: float = 1.0
    share_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Made:
    """How a saved network is made, and what is known of it.

    The network is ``backbone``, changed by ``adapters`` in turn, with ``head`` behind it, for images of ``in_shape``
    (C, H, W). ``classes`` names its outputs. ``meanings`` lists for every output the classes it stands for, where it
    stands for several, and is empty elsewhere. ``cautions`` say where its answers differ from those in its own trial;
    ``incomplete`` says why it cannot be used by itself. ``precision`` is what it was trained in, ``test_accuracy``
    its own trial's. ``sha256`` is that of the weights beside it; the writer fills it in. ``data`` is None where nobody
    recorded what it was trained on.
    """

    format: int = FORMAT
    backbone: Named
    adapters: tuple[Named, ...] = ()
    head: Named
    classes: tuple[str, ...]
    in_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    data: DataRef | None = None
    meanings: tuple[tuple[str, ...], ...] = ()
    cautions: tuple[str, ...] = ()
    incomplete: str = ""
    precision: str | None = None
    test_accuracy: float | None = None
    sha256: str = ""

    def trained_on(self) -> DataRef:
        """The data it was trained on.

        Raises:
            UserError: they were not recorded.
        """
        if self.data is None:
            raise must("a saved network", "one whose data are recorded", "one without", "Name them with --dataset.")
        return self.data


@dataclass
class _Format:
    format: int = 1


def to_json(made: Made) -> bytes:
    """The content of a ``model.json``."""
    return json.dumps(asdict(made), indent=1).encode()


def from_json(raw: bytes) -> Made:
    """What a ``model.json`` says, of this format or of the one before it.

    Raises:
        UserError: it has a format that is not known here.
        ValueError: it is none.
    """
    found = _checked(_Format, raw).format
    if found == 1:
        return _from_format_1(_checked(format1.Content, raw))
    if found != FORMAT:
        raise must("model.json", f"of format 1 or {FORMAT}", found, "Install the engram that wrote it, or a later one.")
    return _checked(Made, raw)


def _from_format_1(old: format1.Content) -> Made:
    """Options that were left out get the values they had then."""
    view = None if old.view is None else Named(old.view.name, 1, old.view.options)
    data = DataRef(
        name=old.dataset,
        options=format1.in_full(old.dataset.partition(":")[0], old.dataset_options),
        fingerprint=old.data_sha256,
        validation=old.validation,
        view=view,
    )
    return Made(
        backbone=Named(old.backbone, 1, format1.in_full(old.backbone, old.backbone_options)),
        adapters=tuple(Named(each.name, 1, format1.in_full(each.name, each.options)) for each in old.adapters),
        head=Named("linear", 1, {}),
        classes=tuple(old.classes),
        in_shape=old.in_shape,
        data=data if old.dataset else None,
        meanings=tuple(map(tuple, old.meanings)),
        cautions=tuple(old.cautions),
        incomplete=old.incomplete,
        precision=old.precision,
        test_accuracy=old.test_accuracy,
        sha256=old.sha256,
    )


def _checked(shape: type[T], raw: bytes) -> T:
    try:
        return _adapter(shape).validate_json(raw, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"model.json with another {where or 'shape'} ({first['msg']})") from None


@cache
def _adapter(shape: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(shape)
