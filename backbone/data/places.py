"""Where the sets that torchvision downloads are looked for; no torch here."""

from __future__ import annotations

from pathlib import Path

from backbone.errors import MissingData

IDX_FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))


def idx_folder(root: Path, kind: str) -> Path:
    return root / kind / "raw"


def missing_idx(name: str, kind: str, root: Path) -> MissingData | None:
    """The error for a set of IDX files that is not whole; None when all files are there."""
    folder = idx_folder(root, kind)
    return None if all((folder / file).is_file() for file in IDX_FILES) else missing(name, folder)


def cifar_folder(root: Path, kind: str) -> Path:
    return root / ("cifar-10-batches-py" if kind == "CIFAR10" else "cifar-100-python")


def has_tables(folder: Path) -> bool:
    """Whether a set lies there as parquet files."""
    return any(folder.glob("*.parquet"))


def missing_cifar(name: str, kind: str, root: Path) -> MissingData | None:
    """The error for a CIFAR set that is there neither as torchvision's files nor as tables."""
    folder, tables = cifar_folder(root, kind), root / name
    return None if folder.is_dir() or has_tables(tables) else missing(name, f"{folder} and {tables}/*.parquet")


def omniglot_folders(root: Path) -> list[Path]:
    for place in (root / "omniglot-py", *sorted(root.glob("omniglot*")), root):
        found = [*sorted(place.glob("images_background*")), *sorted(place.glob("images_evaluation"))]
        if folders := [folder for folder in found if folder.is_dir()]:
            return folders
    return []


def missing_omniglot(name: str, kind: str, root: Path) -> MissingData | None:
    """The error for Omniglot when none of its folders is there."""
    return None if omniglot_folders(root) else missing(name, f"{root}/omniglot-py/images_background")


def missing(name: str, looked_in: Path | str) -> MissingData:
    return MissingData(
        f"dataset {name!r} must be under the data root; got nothing at {looked_in}. "
        "Say where it is with --data-root (or ENGRAM_DATA), or get it with --download."
    )
