"""Name -> lazy factory. Plugins are found by entry point; nothing is imported before it is chosen.

>>> "lenet5" in Registry.discover().names("backbones")
True
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from engram.backbone.brought import find, is_code
from engram.backbone.contract import KINDS, Command, DataFiles, Entry, Kind, KnownData, Plugin, Target
from engram.backbone.errors import UserError, must, nearest
from engram.backbone.given_files import NETWORKS, is_known

GROUP = "engram.plugins"
_BROUGHT = "engram.backbone.nets.brought:factory"
"""Makes the target of a network that is code of the user's own."""
SINGULAR = {kind: "strategy" if kind == "strategies" else kind[:-1] for kind in KINDS}
_CLAIMED = {**SINGULAR, "commands": "command"}


_PACKAGES = ("backbone", "benchmarks", "continual", "snn")
"""Packages of ours that could once be imported by these names alone."""


@dataclass(frozen=True)
class Registry:
    """Everything the installed plugins offer, and why the broken ones could not be loaded."""

    plugins: Mapping[str, Plugin]
    broken: Mapping[str, str] = field(default_factory=dict)
    distributions: Mapping[str, str] = field(default_factory=dict)
    """By plugin, the name of the installed distribution that it came with."""
    schemas: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What has been looked up before: the options of named things (`engram.backbone.options.named.named_schema`)."""
    _found: dict[tuple[Kind, str], tuple[str, Entry]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def discover(cls, runner: Plugin | None = None) -> Registry:
        """Load every entry point of the group; a plugin that fails to import becomes a row in ``broken``.

        ``runner`` is what the command line offers itself: no plugin may offer that, too. Entry points are looked up
        again only where something was installed since.
        """
        places = tuple((place, _changed(place)) for place in sys.path)
        key = ("" if runner is None else runner.name, places)
        if key not in _DISCOVERED:
            _DISCOVERED[key] = cls._discover(runner)
        return _DISCOVERED[key]

    @classmethod
    def _discover(cls, runner: Plugin | None) -> Registry:
        plugins: dict[str, Plugin] = {} if runner is None else {runner.name: runner}
        broken: dict[str, str] = {}
        distributions: dict[str, str] = {}
        for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
            try:
                plugin = point.load()
                if not isinstance(plugin, Plugin):
                    raise TypeError(
                        f"{point.value} is a {type(plugin).__name__}, not an engram.backbone.contract.Plugin"
                    )
                if point.name in plugins:
                    raise ValueError(f"another installed package has a plugin called {point.name!r}")
                cls._claim(plugin, plugins)
                plugins[point.name] = plugin
                if point.dist is not None:
                    distributions[point.name] = point.dist.name
            except (Exception, SystemExit) as error:  # a stranger's plugin may fail in any way; the others must live
                broken[point.name] = _why(error)
        return cls(plugins, broken, distributions)

    @staticmethod
    def _claim(plugin: Plugin, others: Mapping[str, Plugin]) -> None:
        for kind, what in _CLAIMED.items():
            for name in getattr(plugin, kind):
                owner = next((other for other, held in others.items() if name in getattr(held, kind)), None)
                if owner is not None:
                    raise ValueError(f"it offers {what} {name!r}, which plugin {owner!r} offers already")

    def entries(self, kind: Kind) -> Iterator[tuple[str, str, Entry]]:
        """Yield (plugin, name, entry) of one kind, in the order of plugins and their own order."""
        for plugin_name, plugin in self.plugins.items():
            for name, entry in getattr(plugin, kind).items():
                yield plugin_name, name, entry

    def choices(self, kind: Kind) -> Iterator[tuple[str, str, Entry]]:
        """The `entries` that an option may name."""
        return (found for found in self.entries(kind) if not found[2].instead)

    def names(self, kind: Kind) -> list[str]:
        """The names that an option may have."""
        return [name for _, name, _ in self.choices(kind)]

    def entry(self, kind: Kind, name: str) -> Entry:
        """The entry called ``name``, which may leave out its plugin; where one takes a path it is ``NAME:PATH``.

        Raises:
            UserError: nothing has that name, or a path is missing or not wanted.
        """
        return self._find(kind, name)[1]

    def canonical(self, kind: Kind, name: str) -> str:
        """The whole name of what may be called without its plugin: ``si`` for ``continual.si``.

        Raises:
            UserError: as `entry`.
        """
        return self._find(kind, name)[0]

    def chosen(self, kind: Kind, name: str) -> str:
        """The whole name of what an option names.

        Raises:
            UserError: as `entry`, or no option can name it.
        """
        whole, entry = self._find(kind, name)
        if entry.instead:
            offered = f"one of {', '.join(self.names(kind))}"
            raise UserError(f"{SINGULAR[kind]} must be {offered}; got {whole}. {entry.instead}")
        return whole

    def plugin_of(self, kind: Kind, name: str) -> str | None:
        """The plugin that offers something; its name may leave out the plugin. None: the user's own code does.

        Raises:
            UserError: as `entry`.
        """
        known = self._find(kind, name)[0].partition(":")[0]
        return next((plugin for plugin, held in self.plugins.items() if known in getattr(held, kind)), None)

    def _find(self, kind: Kind, name: str) -> tuple[str, Entry]:
        if (kind, name) in self._found:
            return self._found[kind, name]
        found = self._look_up(kind, name)
        if found[1].target != _BROUGHT and not _of_a_file(kind, found[1]):  # what stands in a user's file may change
            self._found[kind, name] = found
        return found

    def _look_up(self, kind: Kind, name: str) -> tuple[str, Entry]:
        base, colon, path = name.partition(":")
        offered = {known: entry for _, known, entry in self.entries(kind)}
        shortened = [known for known in offered if known.rpartition(".")[2] == base]
        known = base if base in offered else shortened[0] if len(shortened) == 1 else None
        if known is None and kind == "backbones" and is_code(name):
            code = find(name)
            return code.name, Entry(target=_BROUGHT, summary=f"{code.cls} of {code.path}")
        if known is not None:
            entry, what = offered[known], SINGULAR[kind]
            if entry.takes_path and not path:
                raise UserError(f"{what} {base!r} must be given with a path; got {name!r}. Write {base}:PATH.")
            if colon and not entry.takes_path:
                raise UserError(f"{what} {base!r} must be given without a path; got {name!r}. Write {base}.")
            return known + colon + self._known_path(kind, entry, path), entry
        ends = [known.rpartition(".")[2] for known in offered]
        usable = [
            end if ends.count(end) == 1 and "." not in base else known for known, end in zip(offered, ends, strict=True)
        ]
        hint = nearest(base, usable)
        lost = "".join(f" Plugin {plugin!r} could not be loaded ({why})." for plugin, why in self.broken.items())
        what = SINGULAR[kind]
        raise UserError(f"{what} must be a registered name; got {name!r}. {hint}{lost} See: engram list {kind}")

    def _known_path(self, kind: Kind, entry: Entry, path: str) -> str:
        """The path of a name, as it is known everywhere."""
        if _of_a_file(kind, entry):
            return _known_file(entry, path)
        if not entry.wraps:
            return path
        inner = self.chosen(kind, path)
        own, its = None if entry.options is None else resolve(entry.options), self.options(kind, inner)
        if common := _fields(own) & _fields(its):
            rule = f"one without options called {', '.join(sorted(common))}"
            raise must(f"the {SINGULAR[kind]} that another one wraps", rule, path, "Take another one.")
        return inner

    def wrapped(self, kind: Kind, name: str) -> str | None:
        """The whole name of what something is made of, where its path is the name of another thing.

        Raises:
            UserError: as `entry`.
        """
        whole, entry = self._find(kind, name)
        return whole.partition(":")[2] if entry.wraps else None

    def without_linear_form(self, head: str | None, who: str) -> list[str]:
        """The problem, if any, that a head has no linear form, which ``who`` needs (None: another trial's)."""
        if head is None or self.entry("heads", head).linear:
            return []
        return [f"--head must be one with a linear form for {who}; got {head}. Use --head linear."]

    def load(self, kind: Kind, name: str) -> Any:
        """Import and return the object an entry points at; what makes a network of the user's own code."""
        target = self.entry(kind, name).target
        return resolve(target)(find(name)) if target == _BROUGHT else resolve(target)

    def content(self, backbone: str) -> str:
        """What the file says that a network comes as, without its weights; "" for one that comes as none.

        Raises:
            UserError: it is no such file, or was not given.
        """
        whole, entry = self._find("backbones", backbone)
        return _content(entry.content, whole.partition(":")[2]) if entry.content is not None else ""

    def options(self, kind: Kind, name: str) -> type | None:
        """The options dataclass of an entry (imports no torch), or None; with those of what it wraps."""
        entry = self.entry(kind, name)
        if entry.target == _BROUGHT:
            return find(name).options()
        own = None if entry.options is None else resolve(entry.options)
        inner = self.wrapped(kind, name)
        return own if inner is None else _both(own, self.options(kind, inner))

    def problems(
        self, dataset: str, options: Mapping[str, Any], *, root: Path, download: bool, training: bool
    ) -> list[str]:
        """What a look at the files of a dataset finds wrong, without torch; nothing where its entry has no check."""
        entry, cls = self.entry("datasets", dataset), self.options("datasets", dataset)
        if entry.check is None:
            return []
        chosen = None if cls is None else cls(**options)
        path = dataset.partition(":")[2] or None
        return resolve(entry.check)(path, chosen, root=root, download=download, training=training)

    def lacks(self, experiment: str) -> list[str]:
        """What an experiment needs beside its options and data, and is not there; without torch."""
        where = self.entry("experiments", experiment).check
        return [] if where is None else resolve(where)()

    def files(self, dataset: str, *, root: Path) -> DataFiles | None:
        """The files that a dataset is made of; None where its name says all that there is to know.

        Raises:
            UserError: they are not there, or no dataset has that name.
        """
        where = self.entry("datasets", dataset).files
        return None if where is None else resolve(where)(dataset.partition(":")[2] or None, root=root)

    def known(self, dataset: str, options: Mapping[str, Any], *, root: Path) -> KnownData | None:
        """What is known of a dataset before it is read; None where nothing is.

        Raises:
            UserError: its files are not there, an option is wrong, or no dataset has that name.
        """
        where, cls = self.entry("datasets", dataset).known, self.options("datasets", dataset)
        if where is None:
            return None
        return resolve(where)(dataset.partition(":")[2] or None, None if cls is None else cls(**options), root=root)

    def commands(self) -> Mapping[str, Command]:
        return {name: command for plugin in self.plugins.values() for name, command in plugin.commands.items()}

    def function(self, name: str) -> tuple[Any, type | None]:
        """A function of the Python face and the dataclass of its options.

        Raises:
            UserError: no plugin brings it.
        """
        for plugin in self.plugins.values():
            if (entry := plugin.functions.get(name)) is not None:
                return resolve(entry.target), None if entry.options is None else resolve(entry.options)
        lost = " ".join(f"Plugin {plugin!r} could not be loaded ({why})." for plugin, why in self.broken.items())
        raise UserError(f"engram.{name} must be brought by a plugin; got none that does. {lost or 'Install it.'}")

    def targets(self) -> Mapping[str, Target]:
        return {target.name: target for plugin in self.plugins.values() for target in plugin.targets}


_DISCOVERED: dict[tuple[str, tuple[tuple[str, int], ...]], Registry] = {}


def _changed(place: str) -> int:
    """When something was last put into a folder of packages."""
    try:
        return os.stat(place).st_mtime_ns  # noqa: PTH116 (asked for each trial of a plan: a Path takes five times as long)
    except OSError:
        return 0


def _of_a_file(kind: Kind, entry: Entry) -> bool:
    """Whether something is a network that comes as a file."""
    return kind == "backbones" and entry.takes_path


def _known_file(entry: Entry, path: str) -> str:
    """What a network's file is called by its bytes. One that is given is looked into."""
    name = NETWORKS.known_as(path)
    if not is_known(path) and entry.content is not None:
        _content(entry.content, name)
    return name


def _fields(options: type | None) -> set[str]:
    return set() if options is None else {each.name for each in fields(options)}


@cache
def _both(outer: type | None, inner: type | None) -> type | None:
    """The options of a thing and of the one it wraps as one dataclass."""
    if outer is None or inner is None:
        return outer or inner
    return make_dataclass(outer.__name__, (), bases=(outer, inner), frozen=True, kw_only=True)


@cache
def _content(where: str, name: str) -> str:
    return resolve(where)(NETWORKS.find(name))


@cache
def resolve(where: str) -> Any:
    """Import ``"module:object"``; only strings written in a plugin's own code get here, never configuration."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def _why(error: BaseException) -> str:
    """Why a plugin could not be loaded, in one line."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _PACKAGES:
        return f"it imports {error.name}, which is called engram.{error.name}. Write: import engram.{error.name}"
    return f"{type(error).__name__}: {error}"
