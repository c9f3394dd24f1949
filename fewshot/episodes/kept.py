"""Features of networks that are not trained any more, kept in the user's cache from one trial to the next."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from engram.backbone.atomic import write_atomically
from engram.backbone.caching import kept_in
from engram.backbone.contract import Named
from engram.backbone.data.sets import Data, Split
from engram.backbone.nets.classifier import Classifier
from engram.fewshot.episodes.features import Table

MOST_BYTES = 2 * 2**30
"""Of all that is kept together: what was used longest ago goes first."""
FORMAT = 1


def key_of(model: Classifier, made_of: Sequence[Named], data: Data, split: Split, part: str) -> str:
    """What features depend on, as one hash.

    Args:
        model: its weights and its preprocessing count.
        made_of: the backbone and its adapters.
        data: of which ``split`` is the ``part``.
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if not name.startswith("head."):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(_bytes(tensor))
    index = split.columns.get("original_index")
    for tensor in (split.labels, *([index] if isinstance(index, Tensor) else [])):
        digest.update(_bytes(tensor))
    about = {
        "format": FORMAT,
        "made": {"network": [asdict(each) for each in made_of]},
        "data": [data.fingerprint, part, len(split), list(split.in_shape), split.frames],
        "computed": [torch.__version__, next(model.parameters()).device.type, torch.get_num_threads()],
    }
    digest.update(json.dumps(about, sort_keys=True).encode())
    return digest.hexdigest()


def fill(table: Table, model: Classifier, key: str, seconds: float) -> None:
    """Fill a table: with the features kept under a key, or else for about so long; whole ones are kept there."""
    if not table.done and (known := recall(key)) is not None and len(known) == len(table.split):
        table.load_state_dict({"rows": known})
        return
    table.fill(model, seconds)
    if table.whole:
        keep(key, table.rows)


def recall(key: str) -> Tensor | None:
    """The features kept under a key, [N, F] float32 on the CPU; None where there are none, or they are damaged."""
    path = _path(key)
    if path is None:
        return None
    try:
        with safe_open(path, "pt") as file:
            sha256, rows = (file.metadata() or {}).get("sha256"), file.get_tensor("features")
        os.utime(path)
    except (OSError, SafetensorError):
        return None
    sound = rows.dtype == torch.float32 and rows.ndim == 2 and sha256 == _sha256(rows)
    return rows if sound else None


def keep(key: str, rows: Tensor) -> None:
    """Keep features, [N, F] float32, where there is a cache and they are no more than a quarter of it."""
    path = _path(key)
    if path is None or rows.numel() * 4 > MOST_BYTES // 4:
        return
    rows = rows.detach().cpu().contiguous()
    try:
        write_atomically(path, save({"features": rows}, {"sha256": _sha256(rows)}), durable=False)
        _make_room(path.parent)
    except OSError:  # a full disk: it is only a cache
        return


def _path(key: str) -> Path | None:
    folder = kept_in("features")
    return None if folder is None else folder / f"{key[:32]}.safetensors"


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]


def _sha256(rows: Tensor) -> str:
    return hashlib.sha256(_bytes(rows)).hexdigest()


def _make_room(folder: Path) -> None:
    """Other processes may do the same at the same time."""
    known = []
    for path in folder.glob("*.safetensors"):
        try:
            about = path.stat()
        except FileNotFoundError:
            continue
        known.append((about.st_mtime, about.st_size, path))
    total = sum(size for _, size, _ in known)
    for _, size, path in sorted(known):
        if total <= MOST_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= size
