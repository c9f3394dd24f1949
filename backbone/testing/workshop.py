"""Where the kit runs experiments: in this process, each configuration once, in folders that go when it ends."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engram.backbone.contract import ExperimentConfig, Kind, Named, Requirement, Result, Row, Scalar
from engram.backbone.data.load import Data, load
from engram.backbone.errors import UserError
from engram.backbone.options import Checker, in_full
from engram.backbone.options.inherited import inherited, made_from
from engram.backbone.options.schema import Option, schema
from engram.backbone.registry import Registry
from engram.backbone.seeding import seed_everything
from engram.backbone.testing.samples import CLASSES, SHAPE, SMALL

IMAGES = 120
FOR_A_TRAINED = ("steps", "calibration_images", "tasks", "base_classes", "ways", "queries", "episodes")
"""What makes an experiment small that is given a trained network; all else follows from that."""
COLUMNS = r"(?P<group>\d)-(?P<environment>\d)-"


@dataclass
class Told:
    """What the kit lends to an experiment (`engram.backbone.contract.Services`); it keeps what it is told."""

    trial_dir: Path
    data_root: Path
    inputs: Mapping[str, Path]
    device: str = "cpu"
    download: bool = False
    ledger: dict[tuple[str, int], float] = field(default_factory=dict)
    facts: dict[str, Scalar] = field(default_factory=dict)
    tables: list[tuple[str, Sequence[Row]]] = field(default_factory=list)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.ledger.setdefault((name, step), value)

    def progress(self, done: float, total: float, text: str = "") -> None:
        if not 0 <= done <= total:
            raise AssertionError(f"progress is from 0 to its total; got {done} of {total}")

    def provenance(self, **facts: Scalar) -> None:
        self.facts |= facts

    def table(self, title: str, rows: Sequence[Row]) -> None:
        self.tables.append((title, rows))


@dataclass
class Ran:
    """A finished run: ``steps`` calls of ``step``, and what it said and came to."""

    experiment: str
    config: ExperimentConfig
    services: Told
    result: Result
    steps: int

    @property
    def folder(self) -> Path:
        return self.services.trial_dir


@dataclass
class Workshop:
    """A registry, the options and data sets that things are tried with, and a folder.

    Attributes:
        registry: what is installed.
        options: of things and of experiments, by name and field, in place of the kit's own.
        data: by the name of an objective, a data set that has the columns that it needs, or such a set and its options;
            without, the kit's own, which has ``group`` and ``environment``.
    """

    registry: Registry
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data: Mapping[str, str | tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    _ran: dict[str, Ran] = field(default_factory=dict)
    _loaded: dict[str, Data] = field(default_factory=dict)

    @cached_property
    def folder(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="engram-kit-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder

    @cached_property
    def pictures(self) -> str:
        """A folder of small grey pictures whose classes can be told apart, as ``--dataset`` names it.

        Each has a ``group`` and an ``environment``, 0 or 1, in its name.
        """
        noise = np.random.default_rng(0)
        for number in range(IMAGES):
            label = number % CLASSES
            pixels = noise.integers(0, 128, SHAPE[1:], dtype=np.uint8)
            pixels[2 * label : 2 * label + 2] += 100
            name = f"{number // CLASSES % 2}-{number // (2 * CLASSES) % 2}-{number}.png"
            path = self.folder / "pictures" / f"class{label}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        return f"folder:{self.folder / 'pictures'}"

    def data_for(self, objective: str = "") -> dict[str, Any]:
        """Which data set to try things on, as options say it: pictures, or what an objective needs."""
        found = self.data.get(objective)
        if isinstance(found, str):
            return {"dataset": found, "dataset_options": self.options.get(found, {})}
        if found is not None:
            return {"dataset": found[0], "dataset_options": found[1]}
        return {"dataset": self.pictures, "dataset_options": {"name_pattern": COLUMNS}}

    def loaded(self, objective: str) -> Data:
        """That data set, read once."""
        chosen = self.data_for(objective)
        if (key := repr(chosen)) not in self._loaded:
            data = load(chosen["dataset"], chosen["dataset_options"], root=self.folder, validation=SMALL["validation"])
            self._loaded[key] = data
        return self._loaded[key]

    def named(self, kind: Kind, name: str, small: Mapping[str, Any] | None = None) -> Named:
        """A thing with the options that it is tried with; ``small`` are the kit's own."""
        return in_full(self.registry, kind, name, {**(small or {}), **self.options.get(name, {})})

    def naming(self, experiment: str, kind: Kind) -> Option | None:
        """The option of an experiment that names things of a kind.

        None where the experiment takes no network but one that comes with its weights: then it is given by its trial.
        """
        found = next((option for option in self.schema(experiment) if option.kind == kind), None)
        return None if found is not None and kind == "backbones" and found.default is None else found

    def schema(self, experiment: str) -> tuple[Option, ...]:
        """The options of an experiment."""
        return schema(self.registry.options("experiments", experiment) or ExperimentConfig)

    def given(self, experiment: str, **chosen: Any) -> dict[str, Any]:
        """What to give to an experiment: what makes it small, unless it follows from other options, and what is
        chosen.
        """
        small: dict[str, Any] = {**SMALL, **self.data_for()}
        if any(option.key in chosen for option, _ in made_from(self._class(experiment))):
            small = {key: value for key, value in small.items() if key in FOR_A_TRAINED}
        known = {option.field for option in self.schema(experiment) if not option.optional}
        values = {name: value for name, value in small.items() if name in known}
        return {**values, **self.options.get(experiment, {}), **chosen}

    def options_for(self, experiment: str, kind: Kind, name: str) -> dict[str, Any]:
        """What to give to an experiment so that it uses a thing, with the options that this is tried with."""
        option = self.naming(experiment, kind)
        assert option is not None
        own = self.options.get(name, {})
        inside = {f"{name.rpartition('.')[2]}.{key}" if option.many else key: value for key, value in own.items()}
        found: dict[str, Any] = {option.field: (name,) if option.many else name}
        return found | ({f"{option.field}_options": inside} if inside else {})

    def starts_from(self, experiment: str) -> str | None:
        """The option with which an experiment is given a trained network."""
        roles = {role: option.key for option, role in made_from(self._class(experiment))}
        return roles.get("trained")

    def cannot_be_without(self, experiment: str) -> str | None:
        """That option, where there is nothing to do without it."""
        option = self.starts_from(experiment)
        try:
            self.configured(experiment, self.given(experiment))
        except UserError:
            return option
        return None

    def uses(self, experiment: str, kind: Kind) -> tuple[str, ...]:
        """What every run of an experiment works with."""
        return self._class(experiment).uses.get(kind, ())

    def _class(self, experiment: str) -> type[ExperimentConfig]:
        return self.registry.options("experiments", experiment) or ExperimentConfig

    def configured(self, experiment: str, given: Mapping[str, Any]) -> tuple[ExperimentConfig, dict[str, Path]]:
        """The whole configuration, and the folders of the runs that it is made from, which are run first.

        Raises:
            UserError: it cannot be, one line for each problem.
        """
        cls = self._class(experiment)
        checker = Checker(self.registry, lambda name: f"--{name}", "")
        values = checker.check(cls, given)
        checker.require()
        origins = {
            role: self._ran[str(values[option.field])]
            for option, role in made_from(cls)
            if values.get(option.field) is not None
        }
        known = {
            role: inherited(self.registry, cls, _plain(ran.config), ran.experiment) for role, ran in origins.items()
        }
        config = cls.resolve(values, known)
        if problems := config.problems():
            raise UserError("\n".join(problems))
        inputs = {role: ran.folder for role, ran in origins.items()}
        return config, inputs | {role: self._required(needed).folder for role, needed in config.requires().items()}

    def _required(self, needed: Requirement) -> Ran:
        """The run of what another one requires, after what it is made from itself."""
        before = {role: str(self._required(each).folder) for role, each in needed.after.items()}
        named = {option.field: before[role] for option, role in made_from(type(needed.config)) if role in before}
        config = replace(needed.config, **named)
        inputs = {
            role: self._ran[str(text)].folder
            for option, role in made_from(type(config))
            if (text := getattr(config, option.field)) is not None
        }
        inputs |= {role: self._required(each).folder for role, each in config.requires().items()}
        return self.finished(needed.experiment, config, inputs)

    def run(self, experiment: str, **chosen: Any) -> Ran:
        """Run an experiment, made small, or give back the run of the same configuration.

        Raises:
            UserError: it is refused.
        """
        return self.finished(experiment, *self.configured(experiment, self.given(experiment, **chosen)))

    def finished(self, experiment: str, config: ExperimentConfig, inputs: Mapping[str, Path]) -> Ran:
        """The run of a whole configuration, in a folder of its own, by whose path others name it."""
        key = f"{experiment} {config!r}"
        if key not in self._ran:
            services = self.services(inputs)
            made = self.begun(experiment, config, services)
            state, steps = made.start(), 1
            while made.step(state):
                steps += 1
            ran = Ran(experiment, config, services, made.finish(state), steps)
            self._ran[key] = self._ran[str(services.trial_dir)] = ran
        return self._ran[key]

    def services(self, inputs: Mapping[str, Path]) -> Told:
        """Those of a new folder."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        return Told(folder, self.folder, inputs)

    def begun(self, experiment: str, config: ExperimentConfig, services: Told) -> Any:
        """The experiment, seeded as the runner does it."""
        kind = self.registry.load("experiments", experiment)
        seed_everything(config.seed)
        return kind(config, services)


def _plain(config: ExperimentConfig) -> dict[str, Any]:
    return {option.key: getattr(config, option.field) for option in schema(type(config))}
