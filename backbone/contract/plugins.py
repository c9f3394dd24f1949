"""What a plugin offers, as data: nothing here imports torch or the things described."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engram.backbone.contract.asking import Asks
from engram.backbone.contract.commands import Command
from engram.backbone.contract.networks import Ability
from engram.backbone.contract.strategies import Traits
from engram.backbone.contract.targets import Target

Kind = Literal["experiments", "backbones", "adapters", "heads", "objectives", "strategies", "datasets"]
KINDS: tuple[Kind, ...] = ("experiments", "backbones", "adapters", "heads", "objectives", "strategies", "datasets")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One registered thing, described without importing it.

    ``target`` and ``options`` are ``"module:object"``; the options module must not import torch. For an experiment
    ``options`` names its `ExperimentConfig`; for a backbone, adapter, head, strategy or dataset a frozen dataclass of
    its own options (None: it has none). A strategy says in ``traits`` what it does and needs. An experiment's ``check``
    names a ``check() -> list[str]`` that imports no torch: what is to be installed for it and is not, said before any
    trial starts.

    A dataset that takes a path (``folder:PATH``) sets ``takes_path``; ``check`` names a
    ``check(path, options, *, root, download, training) -> list[str]`` that imports no torch and looks for problems of
    its files before any trial starts: all of them, and much faster than a trial would find one. ``files`` names a
    ``files(path, *, root) -> DataFiles | None`` that imports no torch: their bytes are part of the identity of every
    trial on the set. None, as without it: the name says all (it is made here, or whoever reads it knows its checksum).
    It raises UserError where they are not there. ``known`` names a ``known(path, options, *, root) -> KnownData |
    None`` that imports no torch: what can be said of the set without reading a picture, by which a trial that needs
    something else is refused when it is planned. None, as without it: nothing can. It raises UserError as ``files``
    does.

    A dataset whose path is the name of another one (``corrupted:folder:PATH``) may set ``wraps``: the options of that
    one are then offered beside its own, in one dataclass that is a subclass of both, and its version is part of the
    identity of trials as well.

    A backbone that comes as a file (``nir:FILE``) sets ``takes_path`` as well: trials and saved networks know it by the
    file's bytes, as ``nir:FILE@HASH``. Its ``content`` names a ``content(path) -> str`` that imports no torch: what the
    file says of the network beside its weights, as text, with which a saved network is made again without the file. It
    raises UserError for whatever is no such file. The target is a ``make(in_shape, options, content, path)``; ``path``
    is None where a saved network is made again, whose weights are filled in afterwards.

    ``needs`` are names of protocols (`engram.backbone.contract.networks`) that a network must be for an adapter; what a
    backbone or adapter makes is none that ``offers`` leaves out (None: nobody knows before it is made). A network that
    an adapter cannot be put on is then refused when a trial is planned.

    The target of an adapter is a ``make(backbone, options, saved) -> Backbone`` that leaves the backbone it is given as
    it is; ``saved`` is None, or where a saved network is made again the tensors that it will get, by their names in it.
    A head whose ``as_linear()`` is None says ``linear=False``: experiments that need a linear one then refuse it before
    any trial starts. One that classifies by a support set (`engram.backbone.contract.SupportHead`) says ``support``.
    Of these, one that is not to be trained with fixed classes says ``trainable=False``; one that does not give a
    classifier of fixed classes either, by its ``fitted``, ``fixed=False``; and one whose answer to a query depends on
    the other queries ``transductive``. Experiments with episodes take those with ``support`` alone, all others those
    that are ``fixed`` and ``trainable``.

    Of heads, one that is a `torch.nn.Linear` says ``layer``, one that is `Conceptual` says ``conceptual``, and one that
    is `Conditional` names in ``given`` the column of the data whose values its likelihoods are given. Such a head
    adjusts for the column where an objective trains it by these likelihoods, and is refused beside others, which make
    its answers P(y | x), as any classifier's are.

    An objective says in ``asks`` what it needs of data, network, head and experiment.

    ``version`` is raised when the same options make something that computes another thing: saved networks keep the one
    they were made with, and are not made with another; it is part of the identity of every trial that uses the thing,
    and of no other. ``distributions`` are those it works with beside its plugin's own, whose versions go into a trial's
    provenance.

    ``data_parallel`` says whether ``--devices`` may divide the rows of every batch among processes, with the numbers of
    one: of an experiment, that all its work but `finish` is that of one `Trainer` and of what every process can do
    alike, without writing files; of an objective, that it is a function of outputs and columns of rows, and holds no
    weights; of an adapter or a head, that an image's values are its own but for BatchNorm and dropout. None: as most of
    the kind, which is no for experiments and objectives and yes for what networks are made of. What draws random
    numbers in another way is refused in the first step.

    ``instead`` is there where no option can name the thing, because making it takes more than options (an adapter that
    needs data): what to do instead, as a sentence. It is part of saved networks alone, which hold what it needs.
    """

    target: str
    summary: str
    options: str | None = None
    needs: tuple[Ability, ...] = ()
    offers: tuple[Ability, ...] | None = None
    version: int = 1
    instead: str = ""
    linear: bool = True
    fixed: bool = True
    trainable: bool = True
    support: bool = False
    transductive: bool = False
    layer: bool = False
    conceptual: bool = False
    given: str = ""
    asks: Asks = field(default_factory=Asks)
    data_parallel: bool | None = None
    takes_path: bool = False
    wraps: bool = False
    check: str | None = None
    files: str | None = None
    known: str | None = None
    content: str | None = None
    traits: Traits = field(default_factory=Traits)
    distributions: tuple[str, ...] = ()


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
class KnownData:
    """What is known of a data set before it is read.

    Attributes:
        columns: by name, all columns that its training part may have, but ``original_index``. Of one that holds names
            or whole numbers the different values, as text, in ascending order; None where they are not known.
        others: the values that its other parts have, all together, of columns of which they are known.
    """

    columns: Mapping[str, tuple[str, ...] | None]
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """What one package adds to engram. Its only entry point, in the group ``engram.plugins``."""

    name: str
    experiments: Mapping[str, Entry] = field(default_factory=dict)
    backbones: Mapping[str, Entry] = field(default_factory=dict)
    adapters: Mapping[str, Entry] = field(default_factory=dict)
    heads: Mapping[str, Entry] = field(default_factory=dict)
    objectives: Mapping[str, Entry] = field(default_factory=dict)
    strategies: Mapping[str, Entry] = field(default_factory=dict)
    datasets: Mapping[str, Entry] = field(default_factory=dict)
    targets: Sequence[Target] = ()
    views: Mapping[str, str] = field(default_factory=dict)
    """Ways in which saved networks saw their data: the name in their record, and ``"module:object"`` of a
    ``view(data, options) -> Data`` whose labels are the network's outputs and whose images are those it was shown."""
    commands: Mapping[str, Command] = field(default_factory=dict)
    """Commands of ``engram``, by the word that is typed."""
    checks: Mapping[str, str] = field(default_factory=dict)
    """Rows of ``engram doctor``: what is looked at, and ``"module:object"`` of a ``check(places: Places) ->
    Iterable[Check]`` whose module imports nothing heavy."""
    installs: Mapping[str, str] = field(default_factory=dict)
    """What ``engram doctor --install NAME`` makes, by name, and ``"module:object"`` of an ``install(say) -> str`` whose
    module imports nothing heavy: ``say(line)`` tells what is being done, the result what is there now. It raises
    UserError or TrialError where it cannot."""
    functions: Mapping[str, Entry] = field(default_factory=dict)
    """What ``import engram`` offers beside running experiments, by the name that it has there; ``options`` are keyword
    arguments."""
