"""The options of an experiment: dataclasses whose fields are the flags and the TOML keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

from engram.backbone.contract.plugins import Kind, KnownData
from engram.backbone.contract.values import Seed

Direction = Literal["max", "min"]
SplitName = Literal["train", "validation", "test", "all"]
Inputs = Mapping[str, Mapping[str, Any]]
"""Of the trial in each role, the values of its configuration by field, and under `EXPERIMENT` what was run. Fields that
name the trials that it is made from itself have their ids."""
EXPERIMENT = "experiment"
NOTHING: Inputs = MappingProxyType({})
Bounds = tuple[float | None, float | None]
"""The least and the largest value a number can have; None where there is none."""
UNIT_BOUNDS: Mapping[str, Bounds] = {
    "fraction": (0.0, 1.0),
    "points": (-100.0, 100.0),  # a difference of percentages
    **dict.fromkeys(("count", "B", "s", "nat", "spikes", "1/image", "1/s"), (0.0, None)),
}
"""Between what a metric lies, by its unit; without bounds in other units."""
PLAIN_UNITS = ("fraction", "count", "")
"""Units that an axis need not say."""


@dataclass(frozen=True)
class Registered:
    """Marks a field that holds a registered name (for datasets: ``NAME`` or ``NAME:PATH``).

    ``training`` is False for a data set that no classifier is trained on: its training part need not hold every class,
    and its parts may have classes of their own. ``support`` is True for a head that classifies by a support set,
    ``compared`` for one that may adjust for a column (`Entry.given`) and be trained by another objective all the same,
    because the experiment says how far its answers are from what they should be.
    """

    kind: Kind
    training: bool = True
    support: bool = False
    compared: bool = False


@dataclass(frozen=True)
class OptionsOf:
    """Marks a mapping field that holds the options of the thing another field names; flags ``--FIELD.OPTION``."""

    field: str


@dataclass(frozen=True)
class Input:
    """Marks a field that names a trial this one is made from: its id, the beginning of it, its folder, or
    models:/NAME@ALIAS.

    The trial is finished first, and the experiment is handed its folder under this ``role``.
    """

    role: str


@dataclass(frozen=True)
class ProvidedBy:
    """Marks a field some of whose values are another distribution's work: pairs of a value and the distribution."""

    distributions: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Flag:
    """Gives a field another name on the command line and in TOML (``from`` is a Python keyword)."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number an experiment promises to report.

    A score on labelled images says on which (``split``) and what it is (``of``), and is called ``SPLIT/OF``; where a
    trial scores several networks the one that is meant stands in front: ``ann/test/accuracy``. What looks at no label
    (sizes, times, operations) has no split and any name.
    ``timed`` marks wall-clock figures, which no seed can reproduce; everything else must repeat exactly.
    ``optional`` marks one that some configurations cannot report (a validation score without validation images).
    ``bounds`` are the least and the largest value it can have, where its unit does not say so (`UNIT_BOUNDS`): no
    interval leaves them.
    """

    name: str
    unit: str
    direction: Direction
    primary: bool = False
    split: SplitName | None = None
    of: str = ""
    timed: bool = False
    optional: bool = False
    bounds: Bounds | None = None

    def __post_init__(self) -> None:
        if self.split is not None and not f"/{self.name}".endswith(f"/{self.split}/{self.of}"):
            rule = f"{self.split}/{self.of}, or end in it behind the name of a network"
            raise ValueError(f"a score on the {self.split} split must be called {rule}; got {self.name!r}.")

    @property
    def span(self) -> Bounds:
        """Its bounds, or those of its unit."""
        return UNIT_BOUNDS.get(self.unit, (None, None)) if self.bounds is None else self.bounds

    @property
    def label(self) -> str:
        """What an axis says.

        >>> Metric(name="test/loss", split="test", of="loss", unit="nat", direction="min").label
        'loss (nat)'
        """
        said = (self.of or self.name).replace("_", " ")
        return said if self.unit in PLAIN_UNITS else f"{said} ({self.unit})"


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """A trial to plan and finish before this one: an experiment and its whole configuration.

    ``after`` are trials that this one is made from in turn, for the roles of its fields that name trials (`Input`):
    those fields are None, as nobody knows yet what these trials will be called.
    """

    experiment: str
    config: ExperimentConfig
    after: Mapping[str, Requirement] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Base of every experiment's options. Subclasses are frozen, keyword-only, and import no torch.

    An instance is whole: every field has the value that the trial works with. What somebody gave is a mapping of some
    of the fields, and `resolve` is the one way from there to an instance.

    ``version`` is raised when results stop being comparable with earlier ones; it is part of a trial's identity.
    ``uses`` are registered things, by kind, that no option names and every trial of the experiment works with.
    """

    version: ClassVar[int] = 1
    metrics: ClassVar[tuple[Metric, ...]] = ()
    """What a trial reports. Its primary metric is the first of those marked so that it reports."""
    renamed: ClassVar[Mapping[str, str]] = {}
    """Name in trials of earlier releases -> name of now, in which ``{option}`` is the trial's value of that option."""
    uses: ClassVar[Mapping[Kind, tuple[str, ...]]] = {}

    seed: Seed = 0
    """Seed of everything random in the trial."""

    @classmethod
    def resolve(cls, given: Mapping[str, Any], inputs: Inputs = NOTHING) -> Self:
        """The whole configuration for what was given: defaults that depend on other values are filled in.

        Args:
            given: checked values by field.
            inputs: for each role of a trial that ``given`` names (`Input`), the values of that trial's own
                configuration, by this class's fields, as far as it has them: what they fix is inherited.

        Raises:
            UserError: something was given that the input fixes, or that has no meaning beside something else.
        """
        return cls(**given)

    def problems(self) -> list[str]:
        """Errors that concern more than one field, each "<what> must be <rule>; got <value>. <next step>".

        They are those of every seed: of trials that differ in their seeds alone a plan asks one, here and below.
        """
        return []

    def data_problems(self, known: KnownData) -> list[str]:
        """Errors that data show before they are read, as `problems` has them.

        Args:
            known: of the set that the option of a dataset names, or where it is left out the trial that this one is
                made from. Where nothing is known of it, this is not asked.
        """
        return []

    def requires(self) -> Mapping[str, Requirement]:
        """Trials to plan before this one, by role; the runner completes them first and hands over their folders.

        Whether there are any does not depend on the seed; what they are may.
        """
        return {}
