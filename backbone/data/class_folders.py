"""How pictures, or files of another kind, lie in folders, one per class; no torch here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from engram.backbone.data.encoded import SUFFIXES, FilePictures
from engram.backbone.data.files import unfit
from engram.backbone.data.names import (
    TEST,
    TRAIN,
    USUAL,
    VALIDATION,
    Reading,
    hints,
    is_text,
    shown,
    split_of,
    wanted,
    warn_once,
    without_validation,
)
from engram.backbone.errors import UserError, must

_MOST = 10  # files that are named
METADATA = "metadata.csv"
"""A file of this name tells more of the pictures, in `engram.backbone.data.metadata`."""
Parts = Mapping[str, Mapping[str, list[Path]]]
"""Split -> class -> its pictures; ``train`` comes first."""


@dataclass(frozen=True)
class Kind:
    """A kind of file that sets of one folder per class are made of."""

    scheme: str
    """Such sets are named ``scheme:PATH``."""
    one: str
    """What a file of the kind is called."""
    suffixes: Set[str]
    """The ends of their names, in small letters."""


PICTURES = Kind("folder", "picture", SUFFIXES)


def find_parts(path: str | None, which: Reading = "usual", kind: Kind = PICTURES) -> Parts:
    """What ``folder:PATH`` holds, or a set of files of another kind.

    Every folder that holds pictures is a class, called by its path below PATH: ``cat`` or ``Greek/character01``. When
    all folders in PATH are called as splits (`engram.backbone.data.names.split_of`), they are the splits. Hidden
    files, and those without one of the kind's suffixes, are passed over, which is said; links are followed. ``which``
    says which splits are read, and whether their classes are to be the same ones.

    Raises:
        UserError: one line for each thing that is wrong; folders called as splits where classes lie are.
    """
    where = folder_of(path)
    if not where.is_dir():
        got = f"nothing of the kind at {shown(where.absolute())}"
        raise must(f"{kind.scheme}:PATH", "a folder", got, "Check the path.")
    try:
        splits, problems = _splits(where, which, kind)
    except OSError as error:
        got = f"{shown(error.filename)} ({error.strerror})"
        raise must("every folder", "readable", got, "Check its permissions.") from error
    parts: dict[str, dict[str, list[Path]]] = {}
    for split, folders in splits.items():
        try:
            parts[split] = _classes(folders, kind)
        except UserError as error:
            problems.append(str(error))
    if which == "own" and VALIDATION not in splits:
        problems.append(str(without_validation(where)))
    problems += in_several(parts) if which == "disjoint" else _strangers(parts) if which != "any" else []
    if problems:
        raise UserError("\n".join(problems))
    return parts


def folder_of(path: str | None) -> Path:
    """The folder that the PATH of ``folder:PATH`` stands for."""
    return Path(path or "").expanduser()


def pictures_of(parts: Parts) -> FilePictures:
    """All pictures, split after split and class after class."""
    return FilePictures(tuple(path for part in parts.values() for held in part.values() for path in held))


def _strangers(parts: Parts) -> list[str]:
    """A line for every class of another split that ``train`` lacks."""
    step = "Take it away or train on it; for few-shot episodes, say --dataset.parts disjoint."
    return [
        str(
            must(
                f"every class of the {split} set",
                "in the train set too",
                f"{name!r} ({shown(paths[0].parent)})",
                step,
            )
        )
        for split, part in parts.items()
        for name, paths in part.items()
        if TRAIN in parts and name not in parts[TRAIN]
    ]


def in_several(parts: Parts) -> list[str]:
    """A line for every class that stands in several splits."""
    holders: dict[str, list[str]] = {}
    for split, part in parts.items():
        for name in part:
            holders.setdefault(name, []).append(split)
    step = "Take it out of all but one, or leave --dataset.parts out."
    return [
        str(must("every class", "in one part alone", f"{name!r} in {' and in '.join(held)}", step))
        for name, held in holders.items()
        if len(held) > 1
    ]


def _splits(where: Path, which: Reading, kind: Kind) -> tuple[dict[str, list[Path]], list[str]]:
    """The folders of each part, and what is wrong beside them."""
    entries = sorted(where.iterdir())
    folders = [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    found: dict[str, list[Path]] = {}
    for folder in folders:
        if split := split_of(folder.name):
            found.setdefault(split, []).append(folder)
    if not found or any(not split_of(folder.name) and _holds_any(folder, kind) for folder in folders):
        return {TRAIN: [where]}, []
    outside = [entry for entry in entries if _is_one(entry.name, kind) and not entry.is_dir()]
    return wanted(where, kind.scheme, found, which), [_outside(outside, kind)] if outside else []


def _classes(folders: Iterable[Path], kind: Kind) -> dict[str, list[Path]]:
    """Class name -> its pictures in all of these folders."""
    found: dict[str, list[Path]] = {}
    problems: list[str] = []
    for folder in folders:
        try:
            held = class_folders(folder, kind)
        except UserError as error:
            problems.append(str(error))
            continue
        problems += _misread(folder, held, kind)
        for name, paths in held.items():
            found.setdefault(name, []).extend(paths)
    if problems:
        raise UserError("\n".join(problems))
    return dict(sorted(found.items()))


def _holds_any(where: Path, kind: Kind) -> bool:
    return any(_is_one(name, kind) for _, _, names in os.walk(where, followlinks=False) for name in names)


def _misread(where: Path, classes: Iterable[str], kind: Kind) -> list[str]:
    """A line for every folder in which folders look like splits, where classes were expected.

    They do when one of them holds classes itself and is called as a split, or holds pictures and is called ``test``,
    or when several that hold classes, or all there are, bring different splits to mind. Among others ``train`` is a
    class, and so are ``valid`` beside ``invalid``, and ``train station`` beside ``test tube``.
    """
    above: dict[PurePosixPath, set[str]] = {}
    leaves = set(map(PurePosixPath, classes))
    for path in leaves:
        for folder in (path, *path.parents[:-1]):
            above.setdefault(folder.parent, set()).add(folder.name)
    problems = []
    for folder, names in sorted(above.items()):
        holding = {name for name in names if folder / name in above}
        wrong = {name for name in names if split_of(name) and (name in holding or split_of(name) == TEST)}
        for several in (holding, names):
            hinted = {name for name in several if hints(name)}
            if (several is holding or hinted == names) and len(set().union(*map(hints, hinted))) > 1:
                wrong |= hinted
        if wrong:
            here = where / folder
            rule = f"classes, or splits alone ({USUAL})"
            other = "Take away what is neither" if here == where else f"Give {kind.scheme}:{shown(here)}"
            step = f"{other}, or rename them."
            problems.append(str(must(f"the folders in {shown(here)}", rule, shown(", ".join(sorted(wrong))), step)))
    return problems


def class_folders(where: Path, kind: Kind = PICTURES) -> dict[str, list[Path]]:
    """Class name -> its pictures, or files of another kind, both in the order of their names.

    Raises:
        UserError: folders without folders in them hold no picture, pictures lie outside of any class, or a folder
            cannot be read; one line for each.
    """
    found: dict[str, list[Path]] = {}
    problems: list[str] = []
    odd: list[UserError] = []
    others: list[Path] = []
    for here, files, leaf in _walked(where, problems):
        paths = [file for file in files if _is_one(file.name, kind)]
        odd += [error for path in paths if (error := unfit(path, f"a {kind.one}"))]
        others += [file for file in files if not _is_one(file.name, kind) and file.name != METADATA]
        label = here.relative_to(where).as_posix()
        if here == where:
            problems += [_outside(paths, kind)] if paths else []
        elif paths and not is_text(label):
            problems.append(str(must("the name of a class", "in UTF-8", shown(here), "Rename the folder.")))
        elif paths:
            found[label] = paths
        elif leaf:
            rule, got = f"a folder with at least one {kind.one}", f"none in {shown(here)}"
            step = f"Add {kind.one}s ({', '.join(sorted(kind.suffixes))}) or take the folder away."
            problems.append(str(must("every class", rule, got, step)))
    problems += map(str, odd[:_MOST])
    if len(odd) > _MOST:
        rest = f"{len(odd) - _MOST} more that are not"
        problems.append(str(must(f"every {kind.one}", "a readable file", rest, "Restore them or take them out.")))
    if not found and not problems:
        rule = f"a folder with one folder of {kind.one}s per class"
        problems.append(str(must(shown(where), rule, "an empty one", "Check the path.")))
    if problems:
        raise UserError("\n".join(problems))
    _say_passed_over(where, others, kind)
    return dict(sorted(found.items()))


def _walked(where: Path, problems: list[str]) -> Iterator[tuple[Path, list[Path], bool]]:
    """Every folder once, by whichever link, with its files and whether no folder is in it; and what cannot be read."""

    def unreadable(error: OSError) -> None:
        got = f"{shown(error.filename)} ({error.strerror})"
        problems.append(str(must("every folder", "readable", got, "Check its permissions.")))

    seen = set()
    for folder, below, names in os.walk(where, followlinks=True, onerror=unreadable):
        here = Path(folder)
        below[:] = sorted(name for name in below if not name.startswith("."))
        if here.resolve() in seen:  # a link that leads back
            below.clear()
            continue
        seen.add(here.resolve())
        yield here, sorted(here / name for name in names), not below


def _is_one(name: str, kind: Kind) -> bool:
    return Path(name).suffix.lower() in kind.suffixes and not name.startswith(".")


def _say_passed_over(where: Path, others: Iterable[Path], kind: Kind) -> None:
    """Warn of files that are not taken for pictures, or what else: how many of which kind, and the first of them."""
    first, *_ = sorted(others) or [None]
    if first is None:
        return
    kinds = Counter("hidden" if path.name[0] == "." else path.suffix.lower() or "without a suffix" for path in others)
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    warn_once(shown(f"{where}: passed over, as no {kind.one}s by their names: {told} (the first: {first})"))


def _outside(paths: list[Path], kind: Kind) -> str:
    got = shown(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
    return str(must(f"every {kind.one}", "in the folder of its class", got, "Move it to a folder named by its class."))
