"""What a plugin may add to the command line: commands of its own, and rows of ``engram doctor``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from engram.backbone.contract.values import Row, Scalar


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Base of a command's flags, and by itself the flags of a command that has none.

    Subclasses are frozen, keyword-only dataclasses whose fields are the flags, as those of an experiment's options are.
    """

    def problems(self) -> list[str]:
        """What is wrong with the values together, each "<what> must be <rule>; got <value>. <next step>"."""
        return []


F = TypeVar("F", bound=Flags, covariant=True)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of ``engram``, described without importing what it does.

    ``handler`` is ``"module:object"`` of a ``handle(given: Invocation) -> int`` that returns the exit code: 0 done, 1
    its work failed, 2 wrong input. It raises UserError or TrialError for what one line can say, which end with 2 and 1.
    ``flags`` is ``"module:object"`` of a subclass of `Flags`; the modules of both import nothing heavy at their top.
    ``words`` are the arguments that the command takes beside its flags, as help shows them: ``TRIAL [FILE]`` must be
    given one word and takes two, ``SWEEP...`` takes any number from one on. ``experiment``: the first of them names an
    experiment, whose options are flags of the command, too. A command without a ``summary`` is not in ``engram
    --help``.

    A command that ``runs`` an experiment is ``engram run`` of it by a shorter name: it has no handler and no flags of
    its own, and its one word is the trial of the experiment's ``--from``.
    """

    summary: str
    handler: str = ""
    words: str = ""
    flags: str = "engram.backbone.contract:Flags"
    experiment: bool = False
    runs: str = ""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished trial, as a command sees it.

    ``options`` are all that it worked with, by flag name (``backbone.width``); ``metrics`` and ``tables`` are those of
    its result.
    """

    trial: str
    experiment: str
    options: Mapping[str, Scalar]
    metrics: Mapping[str, float]
    tables: Mapping[str, Sequence[Row]]


class Invocation(Protocol[F]):
    """A command as it was given, and what it may ask of the runner."""

    @property
    def argv(self) -> Sequence[str]:
        """All of it as it was typed; its name comes first."""
        ...

    @property
    def words(self) -> Sequence[str]:
        """The arguments, without flags."""
        ...

    @property
    def flags(self) -> F:
        """The flags, checked."""
        ...

    @property
    def options(self) -> Mapping[str, Any] | None:
        """The options given to the experiment, checked, by field; None where the command takes no experiment."""
        ...

    def trial(self, out: Path, name: str) -> Path:
        """The folder of a finished trial below ``out``, by its id, the beginning of it, or its folder.

        Raises:
            UserError: there is none, there are several, or it is not finished.
        """
        ...

    def sweep(self, out: Path, name: str) -> Sequence[Finished | None]:
        """The trials of a sweep below ``out``, in the order of its plan; None for each that is not finished.

        Raises:
            UserError: there is no such sweep.
        """
        ...


@dataclass(frozen=True)
class Check:
    """A row of ``engram doctor``: ``ok``, ``note`` (works, but worth knowing) or ``bad`` (``remedy`` mends it)."""

    name: str
    state: Literal["ok", "note", "bad"]
    found: str
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class Places:
    """The folders that a check may look at: ``out`` has trials, sweeps and the store, ``data`` the data sets."""

    out: Path
    data: Path
