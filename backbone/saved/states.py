"""Resume states that survive kill -9 and notice a flipped byte.

A state is a torch file loaded with ``weights_only=True``. A manifest beside it carries its sha256 and is written last:
a file without one, or with another hash, does not count.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from engram.backbone.atomic import write_atomically
from engram.backbone.saved.bounds import LEAST, MANIFOLD

log = logging.getLogger(__name__)
KEPT = 2


def save_state(folder: Path, step: int, state: Mapping[str, Any], *, logged: int = 0) -> None:
    """Save resume state as ``state-STEP.pt`` and keep the newest two.

    States of later steps can only be damaged ones that were passed over; they go, or they would displace good ones.

    Args:
        logged: how many measurements were logged by then, see `drop_states`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"state-{step:09d}.pt"
    try:
        with path.open("wb") as file:
            told = _Told(file)
            torch.save(dict(state), cast("Any", told))
            told.check()
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    manifest = {"step": step, "sha256": _sha256(path), "logged": logged}
    write_atomically(path.with_suffix(".json"), json.dumps(manifest).encode())
    kept = sorted(stem for stem in {each.stem for each in folder.glob("state-*.json")} if stem <= path.stem)[-KEPT:]
    for old in folder.glob("state-*"):
        if old.stem not in kept:
            old.unlink()


class _Told:
    """A file for `torch.save`, which ends the process when a write fails; `check` raises that error afterwards."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self._error is None:
            try:
                return self._file.write(data)
            except OSError as error:
                self._error = error
        return len(data)

    def flush(self) -> None:
        """What is buffered is written by whoever opened the file."""

    def check(self) -> None:
        if self._error is not None:
            raise self._error


def load_latest(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """The newest state whose bytes are what was saved, as (step, state); None when there is none."""
    for manifest_path in sorted(folder.glob("state-*.json"), reverse=True):
        path = manifest_path.with_suffix(".pt")
        try:
            manifest = json.loads(manifest_path.read_text())
            if _sha256(path) != manifest["sha256"]:
                raise ValueError("its bytes are not the ones that were saved")
            if f"state-{manifest['step']:09d}" != path.stem:
                raise ValueError("its manifest is of another step")
            return manifest["step"], _load(path)
        except Exception as error:  # a stranger's file with a right checksum may fail in any way
            log.warning("checkpoint %s is damaged (%s); going back to the one before", path.name, error)
    return None


def drop_states(folder: Path, beyond: int) -> None:
    """Remove the states that were saved when more than so many measurements were logged."""
    for manifest_path in folder.glob("state-*.json"):
        if _logged(manifest_path) > beyond:
            log.warning("checkpoint %s knows more than the ledger still has; going back", manifest_path.stem)
            manifest_path.unlink()
            manifest_path.with_suffix(".pt").unlink(missing_ok=True)


def _logged(manifest_path: Path) -> int:
    try:
        return int(json.loads(manifest_path.read_text()).get("logged", 0))
    except Exception:  # `load_latest` says that it is damaged
        return 0


def _load(path: Path) -> dict[str, Any]:
    """A torch file that takes no more memory than its size lets expect: it may be packed, or repeat one value."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > size:
            raise ValueError("it unpacks to more than its own size")
    state = torch.load(path, map_location="cpu", weights_only=True)
    todo, values = [state], 0
    while todo:
        value = todo.pop()
        if isinstance(value, Tensor):
            values += value.numel()
        elif isinstance(value, Mapping):
            todo += value.values()
        elif isinstance(value, list | tuple):
            todo += value
    if values > LEAST + MANIFOLD * size:
        raise ValueError(f"its {size} bytes stand for {values} values")
    return state


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
