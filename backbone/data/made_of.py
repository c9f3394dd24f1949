"""The files that data sets are made of, by which data of one name are told apart; no torch here.

They are all that any option could make a reader look at.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from engram.backbone.contract import DataFiles
from engram.backbone.data.class_folders import PICTURES, Kind, Parts, find_parts
from engram.backbone.data.lists import folder_parts, list_files
from engram.backbone.data.metadata import metadata_files
from engram.backbone.data.places import (
    IDX_FILES,
    TONIC_FOLDERS,
    cifar_folder,
    idx_folder,
    missing_cifar,
    missing_idx,
    missing_omniglot,
    missing_tonic,
    omniglot_drawings,
    omniglot_folders,
    tonic_recordings,
)
from engram.backbone.data.recordings.reading import RECORDINGS, place
from engram.backbone.data.table_files import files_of
from engram.backbone.errors import UserError
from engram.backbone.registry import Registry


def folder_files(path: str | None, *, root: Path) -> DataFiles:
    """The pictures of ``folder:PATH`` by split, class, position and name, and what is told of them beside."""
    where = _absolute(path)
    lists = list_files(where)
    files = _by_place(folder_parts(str(where), "disjoint")) if lists else _in_folders(where, PICTURES)
    told = [*metadata_files(where, files.values()), *lists.values()]
    files |= {file.relative_to(where).as_posix(): file for file in told}
    return DataFiles(name="folder", where=f"folder:{_absolute(path)}", files=files)


def events_files(path: str | None, *, root: Path) -> DataFiles:
    """The recordings of ``events:PATH`` by split, class, position and name."""
    where = place(path, root).absolute()
    return DataFiles(name="events", where=f"events:{where}", files=_in_folders(where, RECORDINGS))


def parquet_files(path: str | None, *, root: Path) -> DataFiles:
    """The tables of ``parquet:PATH`` by split and position."""
    return DataFiles(name="parquet", where=f"parquet:{_absolute(path)}", files=_tables(_absolute(path)))


def files_of_another(name: str, path: str | None, *, root: Path) -> DataFiles | None:
    """Those of the data set that another one is made of, as ``saccades:NAME`` is; ``name`` is what that is called."""
    base = Registry.discover().files(path or "", root=root)
    if base is None:
        return None
    return DataFiles(name=f"{name}:{base.name}", where=f"{name}:{base.where}", files=base.files)


saccades_files = partial(files_of_another, "saccades")
corrupted_files = partial(files_of_another, "corrupted")
digit_clutter_files = partial(files_of_another, "digit-clutter")


def tonic_files(path: str | None, *, root: Path) -> DataFiles | None:
    """The recordings of ``tonic:NAME`` by their places below the set's folder; None for a name that nothing has."""
    if path not in TONIC_FOLDERS:
        return None
    if lost := missing_tonic(path, root):
        raise lost
    folder = root / TONIC_FOLDERS[path]
    files = {file.relative_to(folder).as_posix(): file for file in tonic_recordings(path, root)}
    return DataFiles(name=f"tonic:{path}", where=f"tonic:{path}", files=files)


def omniglot_files(path: str | None, *, root: Path) -> DataFiles:
    """The drawings by character and name."""
    if lost := missing_omniglot("omniglot", "Omniglot", root):
        raise lost
    drawings = omniglot_drawings(omniglot_folders(root))
    files = {f"{name}/{file.name}": file for name, held in drawings.items() for file in held}
    return DataFiles(name="omniglot", where="omniglot", files=files)


def _idx_files(name: str, kind: str, path: str | None, *, root: Path) -> DataFiles:
    if lost := missing_idx(name, kind, root):
        raise lost
    folder = idx_folder(root, kind)
    return DataFiles(name=name, where=name, files={file: folder / file for file in IDX_FILES})


def _cifar_files(name: str, kind: str, path: str | None, *, root: Path) -> DataFiles | None:
    """Those of its tables; None for torchvision's files, which are checked against the published md5 when read."""
    if lost := missing_cifar(name, kind, root):
        raise lost
    if cifar_folder(root, kind).is_dir():
        return None
    return DataFiles(name=name, where=name, files=_tables(root / name))


mnist_files = partial(_idx_files, "mnist", "MNIST")
fashion_mnist_files = partial(_idx_files, "fashion-mnist", "FashionMNIST")
kmnist_files = partial(_idx_files, "kmnist", "KMNIST")
cifar10_files = partial(_cifar_files, "cifar10", "CIFAR10")
cifar100_files = partial(_cifar_files, "cifar100", "CIFAR100")


def _tables(where: Path) -> dict[str, Path]:
    try:
        parts = files_of(where, "any")
    except UserError:  # in a part that is usually left out, perhaps
        parts = files_of(where)
    return {f"{part}/{position}": file for part, held in parts.items() for position, file in enumerate(held)}


def _in_folders(where: Path, kind: Kind) -> dict[str, Path]:
    try:
        parts = find_parts(str(where), "any", kind)
    except UserError:  # in a part that is usually left out, perhaps
        parts = find_parts(str(where), kind=kind)
    return _by_place(parts)


def _by_place(parts: Parts) -> dict[str, Path]:
    return {
        f"{part}/{name}/{position}/{file.name}": file
        for part, classes in parts.items()
        for name, held in classes.items()
        for position, file in enumerate(held)
    }


def _absolute(path: str | None) -> Path:
    return Path(path or "").expanduser().absolute()
