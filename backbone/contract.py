"""The contracts between the trunk, the plugins and the runner.

Nothing here imports torch, so that help, listing, planning and validation stay instant. The names are public.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Self, TypeVar, runtime_checkable

from annotated_types import Ge, Lt

if TYPE_CHECKING:
    from torch import Tensor

Bounds = tuple[float | None, float | None]
"""The least and the largest value a number can have; None where there is none."""
Scalar = str | int | float | bool | None
Row = Mapping[str, Scalar]
Kind = Literal["experiments", "backbones", "adapters", "heads", "strategies", "datasets"]
KINDS: tuple[Kind, ...] = ("experiments", "backbones", "adapters", "heads", "strategies", "datasets")
UNIT_BOUNDS: Mapping[str, Bounds] = {
    "fraction": (0.0, 1.0),
    "points": (-100.0, 100.0),  # a difference of percentages
    **dict.fromkeys(("count", "B", "s", "nat", "spikes", "1/image", "1/s"), (0.0, None)),
}
"""Between what a metric lies, by its unit; without bounds in other units."""


# --- what a plugin offers -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One registered thing, described without importing it.

    ``target`` and ``options`` are ``"module:object"``; the options module must not import torch. For an experiment
    ``options`` names its `ExperimentConfig`; for a backbone, adapter, head, strategy or dataset a frozen dataclass of
    its own options (None: it has none). A dataset that takes a path (``folder:PATH``) sets ``takes_path``; ``check``
    names a ``check(path, options, *, root, download, training) -> list[str]`` that imports no torch and looks for
    problems of its files before any trial starts: all of them, and much faster than a trial would find one. ``files``
    names a ``files(path, *, root) -> DataFiles | None`` that imports no torch: their bytes are part of the identity of
    every trial on the set. None, as without it: the name says all (it is made here, or whoever reads it knows its
    checksum). It raises UserError where they are not there.
    """

    target: str
    summary: str
    options: str | None = None
    takes_path: bool = False
    check: str | None = None
    files: str | None = None


@dataclass(frozen=True, kw_only=True)
class DataFiles:
    """The files that a data set is made of.

    ``name`` is the set's without the place where it lies (``folder`` for ``folder:PATH``), ``where`` its whole name
    with that place as an absolute path. ``files`` stand under whatever decides their labels and their order: sets with
    the same bytes under the same words are one.
    """

    name: str
    where: str
    files: Mapping[str, Path]


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """What one package adds to engram. Its only entry point, in the group ``engram.plugins``."""

    name: str
    experiments: Mapping[str, Entry] = field(default_factory=dict)
    backbones: Mapping[str, Entry] = field(default_factory=dict)
    adapters: Mapping[str, Entry] = field(default_factory=dict)
    heads: Mapping[str, Entry] = field(default_factory=dict)
    strategies: Mapping[str, Entry] = field(default_factory=dict)
    datasets: Mapping[str, Entry] = field(default_factory=dict)
    targets: Sequence[Target] = ()
    restorers: Mapping[str, str] = field(default_factory=dict)
    """Steps in the making of a saved network that need data, so that no adapter repeats them: the name that the model's
    list of adapters gives, and ``"module:object"`` of a ``restore(backbone, options, saved) -> Backbone`` that has room
    for the tensors ``saved``."""
    views: Mapping[str, str] = field(default_factory=dict)
    """Ways in which saved networks saw their data: the name in the manifest, and ``"module:object"`` of a
    ``view(data, options) -> Data`` whose labels are the network's outputs and whose images are those it was shown."""


# --- configuration: dataclasses whose fields are the flags and the TOML keys -----------------------------------------


@dataclass(frozen=True)
class Registered:
    """Marks a field that holds a registered name (for datasets: ``NAME`` or ``NAME:PATH``).

    ``training`` is False for a data set that nothing is trained on: it need not hold every class.
    """

    kind: Kind
    training: bool = True


@dataclass(frozen=True)
class OptionsOf:
    """Marks a mapping field that holds the options of the thing another field names; flags ``--FIELD.OPTION``."""

    field: str


@dataclass(frozen=True)
class Flag:
    """Gives a field another name on the command line and in TOML (``from`` is a Python keyword)."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number an experiment promises to report.

    ``timed`` marks wall-clock figures, which no seed can reproduce; everything else must repeat exactly.
    ``optional`` marks one that some configurations cannot report (a validation score without validation images).
    ``bounds`` are the least and the largest value it can have, where its unit does not say so (`UNIT_BOUNDS`): no
    interval leaves them.
    """

    name: str
    unit: str
    direction: Literal["max", "min"]
    primary: bool = False
    timed: bool = False
    optional: bool = False
    bounds: Bounds | None = None

    @property
    def span(self) -> Bounds:
        """Its bounds, or those of its unit."""
        return UNIT_BOUNDS.get(self.unit, (None, None)) if self.bounds is None else self.bounds


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """A trial that must be done before this one: an existing one (``trial``) or one to plan from a configuration.

    ``same_data``: this trial works on the data of the existing one.
    """

    trial: str | None = None
    experiment: str | None = None
    config: ExperimentConfig | None = None
    same_data: bool = False


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Base of every experiment's options. Subclasses are frozen, keyword-only, and import no torch.

    ``version`` is raised when results stop being comparable with earlier ones; it is part of a trial's identity.
    """

    version: ClassVar[int] = 1
    metrics: ClassVar[tuple[Metric, ...]] = ()

    seed: Annotated[int, Ge(0), Lt(2**31)] = 0
    """Seed of everything random in the trial."""

    def resolved(self) -> Self:
        """The configuration with every value that depends on others filled in; idempotent."""
        return self

    def problems(self) -> list[str]:
        """Errors that concern more than one field, each "<what> must be <rule>; got <value>. <next step>"."""
        return []

    def requires(self) -> Mapping[str, Requirement]:
        """Trials this one needs, by role; the runner completes them first and hands over their folders."""
        return {}


# --- what can be run --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A line chart as plain data; the report draws it. ``lines`` are horizontal references (name, y)."""

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    lines: Mapping[str, float] = field(default_factory=dict)
    x_scale: Literal["linear", "log2"] = "linear"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table of numbers to be seen as shades: ``values[row][column]``, nan where there is none."""

    title: str
    x_label: str
    y_label: str
    columns: Sequence[str]
    rows: Sequence[str]
    values: Sequence[Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished trial reports. ``artifacts`` maps names to paths relative to the trial folder."""

    metrics: Mapping[str, float]
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    figures: Mapping[str, Figure | Grid] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)


class Services(Protocol):
    """Everything an experiment may ask of the world. An experiment writes only below ``trial_dir``."""

    @property
    def device(self) -> str: ...
    @property
    def trial_dir(self) -> Path: ...
    @property
    def data_root(self) -> Path: ...
    @property
    def download(self) -> bool: ...
    @property
    def inputs(self) -> Mapping[str, Path]:
        """Folders of the finished trials that `ExperimentConfig.requires` named, by role."""
        ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append to the trial's ledger. A (name, step) pair that is already there is not written again."""
        ...

    def progress(self, done: float, total: float, text: str = "") -> None:
        """Say how far the trial is; shown by the driver, kept nowhere."""
        ...

    def provenance(self, **facts: Scalar) -> None:
        """Record facts about inputs (``data_sha256=...``). A resumed trial must state the same ones."""
        ...

    def table(self, title: str, rows: Sequence[Row]) -> None:
        """Show a table to the user now (a pre-flight, say): it also lands in the trial's log."""
        ...


C = TypeVar("C", bound=ExperimentConfig, covariant=True)
S = TypeVar("S")


class Experiment(Protocol[C, S]):
    """A resumable piece of work; the runner owns the loop, so timing, resume and logging are written once.

    The runner constructs it with its resolved configuration and the services, calls ``start``, loads the newest valid
    checkpoint if there is one, calls ``step`` until it returns False, then ``finish``. ``step`` does a few seconds of
    work at most. ``state_dict`` holds only tensors, numbers, strings and plain containers of them.
    """

    def __init__(self, config: C, services: Services) -> None: ...
    def start(self) -> S: ...
    def step(self, state: S) -> bool: ...
    def finish(self, state: S) -> Result: ...
    def state_dict(self, state: S) -> dict[str, Any]: ...
    def load_state_dict(self, state: S, saved: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Present:
    """What the maintainers of the code behind a published figure say today that the same command gives."""

    value: float
    source: str
    date: str
    """Since when they say so: ``2024``, ``2024-05``."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A figure somebody can hold us to: ``engram reproduce NAME`` runs it and prints target, ours, interval, verdict.

    ``value`` is the published figure, of ``date``; ``present`` is there where its maintainers report another one by
    now, and is then the one to be judged by. The verdict is "reproduced" when the mean over ``seeds`` is not worse than
    that by more than ``tolerance``, and where ``exact`` is set not better either: for what other methods are measured
    against, since a baseline that is too good makes a gain look small, and for a method's known failure. Otherwise it
    is "missed, worse" or "missed, better". It is settled unless the interval of the mean is wider than the tolerance
    and holds both. ``note`` says what was found out about a figure that is missed. ``minutes`` are for all seeds
    together; where ``needs_gpu`` is set on a GPU, and nothing runs without one.
    """

    name: str
    experiment: str
    options: Mapping[str, Scalar]
    metric: str
    value: float
    tolerance: float
    seeds: tuple[int, ...]
    protocol: str
    source: str
    minutes: float
    date: str = ""
    present: Present | None = None
    needs_data: bool = True
    needs_gpu: bool = False
    exact: bool = False
    note: str = ""

    @property
    def judged_by(self) -> float:
        """The figure that ours is compared with."""
        return self.value if self.present is None else self.present.value


# --- networks -------------------------------------------------------------------------------------------------------


@runtime_checkable
class Backbone(Protocol):
    """A network that turns images into features, in one or more steps (spiking time or recurrence).

    ``forward_steps(x)`` gives the features after each step, ``[steps, B, feature_dim]``; ``forward(x)`` their read-out
    ``[B, feature_dim]``: the mean over steps (``readout == "mean"``) or the last step (``"last"``). Input is
    ``[B, C, H, W]`` or, for event frames, ``[B, T, C, H, W]``. State is passed explicitly; there is no ``reset()``.
    ``stages(x)`` is the output of every stage, ``[B, C_i, H_i, W_i]`` each, the mean over steps where there are more.

    One that sets the memory layout of its images itself says so with ``any_layout = True`` (`engram.backbone.layout`).

    What an adapter made may have ``verdicts``, rows of ``layer``, ``kind`` and ``verdict``: what became of every layer.
    Experiments that apply adapters show them.
    """

    in_shape: tuple[int, int, int]
    feature_dim: int
    stage_channels: tuple[int, ...]
    convertible: Literal["full", "hybrid", "no"]
    steps: int
    readout: Literal["mean", "last"]

    def stages(self, x: Tensor) -> list[Tensor]: ...
    def forward_steps(self, x: Tensor) -> Tensor: ...
    def forward(self, x: Tensor) -> Tensor: ...


class Strategy(Protocol):
    """Hooks around the one training loop. A strategy never knows which backbone it trains.

    ``learner`` is the `engram.backbone.training.Trainer` that runs the loop and ``batch`` its
    `engram.backbone.training.Batch`. In a step the hooks run in this order, each for all strategies in turn:
    ``before_forward`` (may append rows), forward pass, ``loss``, backward pass, ``after_backward`` (gradients are
    there), optimizer step, ``after_step`` (gradients are gone; in reverse, so that whoever saw the gradients first
    sees the weights last). ``enter_task`` precedes every forward pass of a task's images, in training and in tests,
    wherever the task is known.

    One with an attribute ``recordable = True`` promises, for its subclasses too, that a training pass stays the same
    function of images and weights: it adds no hooks, changes no mode of a module and no ``requires_grad``, puts no
    other tensor in a weight's place and goes backward through a pass once. On a GPU such passes are recorded
    (`engram.backbone.graphs`).
    """

    def before_task(self, learner: Any, task: Any) -> None: ...
    def enter_task(self, learner: Any, task: int) -> None: ...
    def before_forward(self, learner: Any, batch: Any) -> None: ...
    def loss(self, learner: Any, batch: Any, loss: Tensor) -> Tensor: ...
    def after_backward(self, learner: Any, batch: Any) -> None: ...
    def after_step(self, learner: Any, batch: Any) -> None: ...
    def after_task(self, learner: Any, task: Any) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, saved: Mapping[str, Any]) -> None: ...
