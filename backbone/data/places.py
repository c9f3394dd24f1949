"""Where the sets that torchvision and tonic download are looked for; no torch here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from engram.backbone.data.class_folders import class_folders
from engram.backbone.errors import MissingData, must

IDX_FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))

TONIC_FOLDERS = {"nmnist": "NMNIST", "dvs128-gesture": "DVSGesture", "shd": "SHD"}
"""The set's name for tonic, which is its folder's."""
_EVALUATION = "images_evaluation"
_VINYALS = {
    **dict.fromkeys(("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)"), "validation"),
    **dict.fromkeys(("Kannada", "Keble", "Malayalam", "Manipuri", "Mongolian", "Oriya", "Sylheti", "Tengwar"), "test"),
    **dict.fromkeys(("Old_Church_Slavonic_(Cyrillic)", "Syriac_(Serto)", "Tibetan", "ULOG"), "test"),
}
MINIMAL: dict[str, tuple[str, ...]] = {
    "small1": ("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin"),
    "small2": ("Greek", "Japanese_(katakana)", "Latin", "Sanskrit", "Tagalog"),
}
MINIMAL["small"] = (*MINIMAL["small1"], *MINIMAL["small2"])
"""Alphabets of the two minimal background sets, and of both. Source: Lake et al. 2015, as published with Omniglot."""
_GURMUKHI_TESTED = tuple(f"character{number}" for number in (42, 43, 44, 45))
_RECORDINGS = (".bin", ".npy", ".h5")


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
    """Those of its background sets, then that of the evaluation set."""
    for place in (root / "omniglot-py", *sorted(root.glob("omniglot*")), root):
        found = [*sorted(place.glob("images_background*")), *sorted(place.glob(_EVALUATION))]
        if folders := [folder for folder in found if folder.is_dir()]:
            return folders
    return []


def missing_omniglot(name: str, kind: str, root: Path) -> MissingData | None:
    """The error for Omniglot when none of its folders is there."""
    return None if omniglot_folders(root) else missing(name, f"{root}/omniglot-py/images_background")


def omniglot_drawings(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """Character -> its drawings, by name; one that stands in several of the folders counts once."""
    found: dict[str, dict[str, Path]] = {}
    for folder in folders:
        for name, paths in class_folders(folder).items():
            found.setdefault(name, {}).update({path.name: path for path in paths})
    return {name: [found[name][file] for file in sorted(found[name])] for name in sorted(found)}


def omniglot_parts(root: Path, split: str, background: str | None) -> dict[str, dict[str, list[Path]]]:
    """Part -> character -> its drawings, of a split with characters of their own in every part.

    Args:
        root: where Omniglot is looked for.
        split: ``lake``, ``lake-chosen`` or ``vinyals``.
        background: which alphabets of its own training part are trained on, see `OmniglotOptions`.

    Raises:
        UserError: a part has no character here, or all drawings are in every part.
    """
    if split == "within":
        step = "Say --dataset.split lake, or leave it out."
        raise must("--dataset.background", "for a split with characters of its own in every part", background, step)
    folders = omniglot_folders(root)
    published = [folder for folder in folders if folder.name != _EVALUATION]
    if split != "vinyals":
        parts = {"train": omniglot_drawings(published)}
        if split == "lake-chosen":
            held = {name for name in parts["train"] if _in_vinyals(name) == "validation"}
            parts["validation"] = {name: parts["train"].pop(name) for name in sorted(held)}
        parts["test"] = omniglot_drawings(folder for folder in folders if folder.name == _EVALUATION)
    else:
        parts = {"train": {}, "validation": {}, "test": {}}
        for name, paths in omniglot_drawings(folders).items():
            parts[_in_vinyals(name)][name] = paths
    if background is not None:
        kept = MINIMAL.get(background) or {each.name for folder in published for each in folder.iterdir()}
        parts["train"] = {name: held for name, held in parts["train"].items() if name.partition("/")[0] in kept}
    if lost := [part for part, held in parts.items() if not held]:
        rule, got = f"for the characters of images_background and {_EVALUATION}", f"none to {' or '.join(lost)} on"
        raise must(f"--dataset.split {split}", rule, f"{got} below {root}", "Get both with --download.")
    return parts


def _in_vinyals(name: str) -> str:
    """The part of a character ``ALPHABET/characterNN``.

    Source: the lists of Vinyals et al. 2016 (arXiv 1606.04080) as Snell et al. 2017 publish them: whole alphabets but
    for Gurmukhi, whose last four characters are tested.
    """
    alphabet, _, character = name.partition("/")
    if alphabet == "Gurmukhi":
        return "test" if character in _GURMUKHI_TESTED else "train"
    return _VINYALS.get(alphabet, "train")


def tonic_recordings(name: str, root: Path) -> list[Path]:
    """The files that tonic reads of a set, archives left out."""
    return sorted(file for file in (root / TONIC_FOLDERS[name]).rglob("*") if file.suffix in _RECORDINGS)


def missing_tonic(name: str, root: Path) -> MissingData | None:
    """The error for a set of recordings of which nothing is there."""
    return None if tonic_recordings(name, root) else incomplete_tonic(name, root / TONIC_FOLDERS[name])


def incomplete_tonic(name: str, where: Path | str) -> MissingData:
    return missing(f"tonic:{name}", where, "nothing complete")


def missing(name: str, looked_in: Path | str, found: str = "nothing") -> MissingData:
    return MissingData(
        f"dataset {name!r} must be under the data root; got {found} at {looked_in}. "
        "Say where it is with --data-root (or ENGRAM_DATA), or get it with --download."
    )
