"""What ails a tracking store: troubles that pass, and refusals that will be the same whenever it is asked."""

from __future__ import annotations

import errno
import re
import shlex
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from engram.backbone.errors import must
from engram.benchmarks.sink.address import without_secrets
from engram.benchmarks.worker.disk import no_room

_LASTING = {
    *("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "NOT_FOUND", "RESOURCE_DOES_NOT_EXIST"),
    *("RESOURCE_ALREADY_EXISTS", "ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED"),
    *("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"),
}
_PASSING = {"TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED"}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SEALED = {errno.EACCES, errno.EPERM}
_FULL_DATABASE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}  # a write-ahead log that cannot grow is the latter
_SEALED_DATABASE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
_NOTES = re.compile(r"/\.?sink\.(json|lock)[^/]*$")
"""Where it is noted what was told."""
_LONGEST = 300
_SHOWN = 5  # trials that are named where many have one trouble


class Refused(Exception):
    """What no store of MLflow takes, in the house's one sentence."""


def refuse(what: str, rule: str, got: object, next_step: str) -> Refused:
    """As `engram.backbone.errors.must`, for one trial or one store rather than for all of a command."""
    return Refused(str(must(what, rule, got, next_step)))


def refusal(error: Exception) -> str:
    """What we refused; "" where it was not us. MLflow wraps what is raised while it has its database open."""
    return next((str(cause) for cause in _causes(error) if isinstance(cause, Refused)), "")


def lasting(error: Exception) -> bool:
    """Whether asking again would bring the same answer."""
    return bool(refusal(error)) or bool(unwritable(error)) or getattr(error, "error_code", "") in _LASTING


def unwritable(error: Exception) -> str:
    """That a disk is full or read-only, in the house's one sentence; "" where that is not what ails the store.

    Nothing more is told then: what cannot be noted would be told again.
    """
    for cause in _causes(error):
        full, sealed, said = False, False, str(cause)
        if isinstance(cause, sqlite3.Error):
            code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
            full, sealed = code in _FULL_DATABASE, code in _SEALED_DATABASE
            said = f"{said}: its database"
        elif isinstance(cause, OSError):
            ours = bool(_NOTES.search(str(cause.filename)))
            full, sealed = cause.errno in _FULL, cause.errno == errno.EROFS or (ours and cause.errno in _SEALED)
            said = f"{cause.strerror}: {cause.filename}" if cause.filename else str(cause.strerror)
        if full or sealed:
            remedy = "Free some of that disk." if full else "Copy the folder to where you may write."
            return str(must("what MLflow is told", "on a disk that can be written", said, remedy))
    return ""


def concerns_one(error: Exception, ask: Callable[[], object]) -> bool:
    """Whether an error is about what was told rather than the store: it would last, or the store answers ``ask``.

    MLflow calls a number that is too large and a server that is gone by one code, hence the question.
    """
    if unwritable(error):
        return False
    if lasting(error):
        return True
    if getattr(error, "error_code", "") in _PASSING or any(
        isinstance(cause, ConnectionError | TimeoutError | sqlite3.OperationalError) for cause in _causes(error)
    ):
        return False
    if no_room(error):
        return False
    try:
        ask()
    except Exception:
        return False
    return True


def one_line(error: Exception) -> str:
    """An error in one line, without the password of an address in it."""
    root = list(_causes(error))[-1]
    # "Connection refused" and "database is locked" say more than the layers that pass them on
    told = root if isinstance(root, OSError | sqlite3.Error) else error
    said = (
        f"{told.strerror}: {told.filename}"
        if isinstance(told, OSError) and told.filename
        else str(getattr(told, "strerror", None) or told)
    )
    if type(told).__module__ == "builtins" and not isinstance(told, OSError):
        said = f"{type(told).__name__}: {said}"
    text = without_secrets(" ".join(said.split())) or type(told).__name__
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def sync_command(out: Path, tracking_uri: str | None) -> str:
    """What to type for another try.

    >>> sync_command(Path("my runs"), "http://me:secret@host:5000")
    "engram sync --out 'my runs' --tracking-uri http://host:5000"
    """
    address = ["--tracking-uri", without_secrets(tracking_uri)] if tracking_uri else []
    return shlex.join(["engram", "sync", "--out", str(out), *address])


def refusals(refused: Mapping[str, str], again: str) -> list[str]:
    """What was set aside (trial or sweep -> why), a line for each reason; ``again`` tries again.

    >>> refusals({"trial 01ab": "No.", "trial 23cd": "No."}, "engram sync")
    ['not in MLflow: trial 01ab, trial 23cd: No. Then: engram sync']
    """
    by_reason: dict[str, list[str]] = {}
    for name, why in refused.items():
        by_reason.setdefault(why, []).append(name)
    return [f"not in MLflow: {_names(names)}: {why} Then: {again}" for why, names in by_reason.items()]


def _names(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those below it, the first one last."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
