"""``one-shot-runs:PATH``: the published runs in a folder or a zip file; no torch here.

``runNN/class_labels.txt`` has a line ``runNN/test/itemMM.png runNN/training/classKK.png`` for every picture to
classify, with the one of the same character. Nothing is unpacked: of a zip file the pictures of these names are read
where they are.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engram.backbone.contract import DataFiles
from engram.backbone.data import files
from engram.backbone.data.names import shown
from engram.backbone.data.options import PictureOptions
from engram.backbone.data.survey import survey
from engram.backbone.errors import UserError, must

LABELS = "class_labels.txt"
_RUN = re.compile(r"(?P<where>.*/)?(?P<run>run\d{1,4})/class_labels\.txt")
_LINE = re.compile(r"(?P<run>run\d{1,4})/test/[\w-]+\.png\s+(?P=run)/training/[\w-]+\.png")
_MOST_LINES, _MOST_FAULTS = 1000, 10
_LABELS_BYTES, _PICTURE_BYTES, _ZIP_BYTES, _ENTRIES = 2**16, 2**20, 2**23, 50_000


class Place(Protocol):
    """Where files lie, known by their names with ``/`` between the parts."""

    def names(self) -> list[str]: ...
    def name(self, file: str) -> str:
        """What a file is called in an error."""
        ...

    def read(self, names: Sequence[str], most: int) -> list[bytes]:
        """Their contents. Raises UserError for one that cannot be read or is larger than ``most``."""
        ...


@dataclass(frozen=True)
class Folder:
    """A folder of files."""

    path: Path

    def names(self) -> list[str]:
        found = [*self.path.glob("run*/**/*"), *self.path.glob("all_runs/run*/**/*")]
        return [file.relative_to(self.path).as_posix() for file in found if file.is_file()]

    def name(self, file: str) -> str:
        return shown(self.path / file)

    def read(self, names: Sequence[str], most: int) -> list[bytes]:
        for name in names:
            if error := files.unfit(self.path / name, "a file of a run", most):
                raise error
        return [files.read(self.path / name, "a file of a run") for name in names]


@dataclass(frozen=True)
class Zip:
    """A zip file."""

    path: Path

    def names(self) -> list[str]:
        if error := files.unfit(self.path, "a zip file of runs", _ZIP_BYTES):
            raise error
        with self._opened() as held:
            found = held.namelist()
        if len(found) > _ENTRIES:
            raise must("a zip file of runs", f"of at most {_ENTRIES:,} files", f"{len(found):,}", "Name another file.")
        return found

    def name(self, file: str) -> str:
        return f"{shown(self.path)}/{file}"

    def read(self, names: Sequence[str], most: int) -> list[bytes]:
        with self._opened() as held:
            return [self._read(held, name, most) for name in names]

    def _read(self, held: zipfile.ZipFile, name: str, most: int) -> bytes:
        what, step = "a file of a run", "Take it from where the runs are published."
        try:
            with held.open(name) as file:
                found = file.read(most + 1)
        except Exception as error:  # a stranger's file: encrypted, damaged, by a method nobody has
            raise must(what, "readable", f"{self.name(name)} ({error})", step) from error
        if len(found) > most:
            raise must(what, f"at most {most:,} bytes", f"more in {self.name(name)}", step)
        return found

    def _opened(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except Exception as error:  # a stranger's file may be anything
            got = f"{shown(self.path)} ({error})"
            raise must("a zip file of runs", "a whole one", got, "Name another file.") from error


@dataclass(frozen=True)
class RunPictures:
    """The pictures of runs (`engram.backbone.data.encoded.Pictures`), by their names in a folder or a zip file."""

    place: Place
    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.place.name(self.files[index])

    def read(self, indices: Sequence[int]) -> list[bytes | None]:
        return [*self.place.read([self.files[index] for index in indices], _PICTURE_BYTES)]


@dataclass(frozen=True)
class Found:
    """The runs by name, in order: pairs of a picture to classify and the one of the same character."""

    place: Place
    prefix: str
    pairs: Mapping[str, Sequence[tuple[str, str]]]

    def pictures(self) -> RunPictures:
        """All that are known, then all to classify, in the order of the runs and of the classes' names."""
        each = [pair for pairs in self.pairs.values() for pair in pairs]
        return RunPictures(self.place, tuple(self.prefix + pair[side] for side in (1, 0) for pair in each))


def find_runs(path: str | None) -> Found:
    """The runs in a folder, in its folder ``all_runs``, or in a zip file.

    Raises:
        UserError: a line for everything that is wrong with the lists; pictures are looked at later.
    """
    where = Path(path or "").expanduser()
    if not where.exists():
        raise must("one-shot-runs:PATH", "a folder or a zip file", f"nothing at {shown(where)}", "Check the path.")
    place = Folder(where) if where.is_dir() else Zip(where)
    names = set(place.names())
    lists = {match["run"]: (match["where"] or "", name) for name in names if (match := _RUN.fullmatch(name))}
    if not lists:
        step = "Name the folder or zip file that has run01, run02, ... in it."
        raise must("one-shot-runs:PATH", f"runs with {LABELS}", f"none in {shown(where)}", step)
    prefix = lists[min(lists)][0]
    pairs: dict[str, list[tuple[str, str]]] = {}
    faults: list[str] = []
    for run in sorted(lists, key=lambda run: (len(run), run)):
        where_it_lies, name = lists[run]
        if where_it_lies != prefix:
            got = f"{place.name(name)}"
            faults.append(str(must("every run", f"in one folder ({prefix or 'the top one'})", got, "Move it.")))
            continue
        pairs[run], wrong = _read(place, name, run, prefix, names)
        faults += wrong
    sizes = {len(each) for each in pairs.values()}
    if not faults and len(sizes) > 1:
        got = ", ".join(f"{len(each)} in {run}" for run, each in list(pairs.items())[:_MOST_FAULTS])
        faults.append(str(must("every run", "of as many classes as the others", got, "Complete the lists.")))
    if faults:
        more = [f"... and {len(faults) - _MOST_FAULTS} more like these."] if len(faults) > _MOST_FAULTS else []
        raise UserError("\n".join(faults[:_MOST_FAULTS] + more))
    return Found(place, prefix, pairs)


def _read(place: Place, name: str, run: str, prefix: str, names: set[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The pairs of one run, in the order of the classes, and what is wrong with its list."""
    try:
        text = place.read([name], _LABELS_BYTES)[0].decode()
    except UserError as error:
        return [], [str(error)]
    except UnicodeDecodeError:
        return [], [str(must(f"{place.name(name)}", "a text", "bytes that are none", "Take it from where it came."))]
    found, faults = list[tuple[str, str]](), list[str]()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        what = f"line {number} of {place.name(name)}"
        pair = line.split()
        if (match := _LINE.fullmatch(line.strip())) is None or match["run"] != run:
            rule = f"'{run}/test/itemMM.png {run}/training/classKK.png'"
            faults.append(str(must(what, rule, repr(line[:80]), "Mend it.")))
        elif lost := [file for file in pair if prefix + file not in names]:
            faults.append(str(must(what, "of pictures that are there", f"no {lost[0]}", "Restore it.")))
        else:
            found.append((pair[0], pair[1]))
        if number > _MOST_LINES:
            faults.append(str(must(what, f"the {_MOST_LINES}th at most", number, "Mend it.")))
            break
    return sorted(found, key=lambda pair: pair[1]), faults + list(_one_to_one(place.name(name), found, faults))


def _one_to_one(name: str, pairs: Sequence[tuple[str, str]], faults: Sequence[str]) -> Iterator[str]:
    """Whether every picture stands in one line."""
    for side, what in ((0, "every picture to classify"), (1, "every class")):
        held = [pair[side] for pair in pairs]
        if twice := sorted({file for file in held if held.count(file) > 1}):
            yield str(must(f"{what} of {name}", "in one line", f"{', '.join(twice[:3])} in several", "Mend the list."))
    if len(pairs) < 2 and not faults:
        yield str(must(f"the classes of {name}", "at least two", len(pairs), "Mend the list."))


def check_runs(
    path: str | None, options: PictureOptions | None, *, root: Path, download: bool, training: bool
) -> list[str]:
    """Problems of ``one-shot-runs:PATH``: its lists, and then its pictures."""
    try:
        found = find_runs(path)
    except UserError as error:
        return str(error).splitlines()
    return survey(found.pictures(), options or PictureOptions(), whole=False)


def runs_files(path: str | None, *, root: Path) -> DataFiles:
    """The pictures and lists, or the zip file."""
    where = Path(path or "").expanduser().absolute()
    found = {name: where / name for name in Folder(where).names()} if where.is_dir() else {"runs.zip": where}
    return DataFiles(name="one-shot-runs", where=f"one-shot-runs:{where}", files=found)
