"""What a trial is made from beside its options: data sets by the bytes of their files, trials by what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engram.backbone.contract import DataFiles, KnownData
from engram.backbone.errors import MissingData, UserError, must
from engram.backbone.registry import Registry
from engram.benchmarks.records.contents import Contents, still_holds
from engram.benchmarks.records.stored import read_json


@dataclass(frozen=True)
class DataSet:
    """A data set that is known by its files. ``sha256`` is None as long as they are not there."""

    name: str
    where: str
    sha256: str | None


@dataclass
class DataSets:
    """Looks data sets up, each once; ``fetch`` those that are not there."""

    registry: Registry
    root: Path
    contents: Contents = field(default_factory=Contents)
    fetch: bool = False
    _found: dict[str, DataSet | None] = field(default_factory=dict)
    _known: dict[str, KnownData | None] = field(default_factory=dict)

    def find(self, name: str, options: Mapping[str, Any]) -> DataSet | None:
        """A data set by the name an option gives it; None where the name says all. ``options`` are for fetching it."""
        if name not in self._found:
            found = self.look(name, options)
            self._found[name] = found
            if found is not None:
                self._found[found.where] = found
        return self._found[name]

    def look(self, name: str, options: Mapping[str, Any]) -> DataSet | None:
        """As `find`, at what is there now."""
        try:
            files = self._files(name, options)
            return None if files is None else DataSet(files.name, files.where, self.contents.of(files.files))
        except UserError:  # whoever reads it says what is wrong
            return DataSet(name, name, None)

    def known(self, name: str, options: Mapping[str, Any]) -> KnownData | None:
        """What is known of a data set before it is read, looked up once; None where nothing is."""
        key = f"{name} {sorted(options.items())!r}"
        if key not in self._known:
            try:
                self._known[key] = self.registry.known(name, options, root=self.root)
            except UserError:  # whoever checks the data says what is wrong
                self._known[key] = None
        return self._known[key]

    def _files(self, name: str, options: Mapping[str, Any]) -> DataFiles | None:
        try:
            return self.registry.files(name, root=self.root)
        except MissingData:
            if not self.fetch:
                raise
        from engram.backbone.options import (
            options_of,  # with the reader, and most likely torch, which planning needs not
        )

        path, chosen = name.partition(":")[2] or None, options_of(self.registry, "datasets", name, options)
        self.registry.load("datasets", name)(path, chosen, root=self.root, download=True, budget_bytes=0)
        return self.registry.files(name, root=self.root)


@dataclass(frozen=True)
class Origins:
    """What a trial was planned on, to be compared with what is there when it runs.

    ``data`` are sha256 of data sets by their names, None where they were not there; ``contents`` of the trials it is
    made from by their role, as far as these were done.
    """

    data: Mapping[str, str | None]
    contents: Mapping[str, str]
    inputs: Mapping[str, Path]
    sets: DataSets

    @property
    def settled(self) -> bool:
        return None not in self.data.values()

    def require(self, *, done: bool = False) -> None:
        """Refuse anything else; what is missing is for its reader to say. ``done``: everything has been read.

        Raises:
            UserError: naming it.
        """
        again = "Restore it, or run the same command again, which plans with what is there now."
        for where, planned in self.data.items():
            now = self.sets.look(where, {})
            found = None if now is None else now.sha256
            came_later = planned is None and (done or found is not None)
            if came_later or found not in (planned, None):
                got = "files that came later" if came_later else "other files"
                raise must(f"dataset {where}", "the one that the trial was planned on", got, again)
        for role, folder in self.inputs.items():
            expected = self.contents.get(role) or read_json(folder / "result.json").get("content")
            if expected is not None and not still_holds(folder, expected, self.sets.contents):
                rule = "the trial that this one was planned on" if role in self.contents else "as it was finished"
                raise must(f"input {role} in {folder}", rule, "other files", again)
