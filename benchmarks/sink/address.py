"""Addresses of tracking stores: which can be one, and how they are shown."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from urllib.parse import urlsplit, urlunsplit

_SCHEMES = {"", "file", "http", "https", "databricks", "databricks-uc", "uc", "sqlite"}
_BEHIND_SERVERS = {"postgresql", "mysql", "mssql"}
"""Databases that many machines write to. MLflow keeps their runs' files in a folder of whoever tells it first, which no
other machine has, or where a server alone can put them: it is the server that is told."""
_NO_FILES = "a database without its server, which keeps the files"


def address_of(tracking_uri: str | None) -> str:
    """The name of a store in ``sink.json``; never with the password an address may carry.

    >>> address_of("https://me:secret@host:5000/x?token=1")
    'https://host:5000/x'
    """
    if tracking_uri is None:
        return "default"  # not its path: the whole folder may be moved
    parts = urlsplit(tracking_uri)
    if not parts.netloc:
        return tracking_uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def without_secrets(text: str) -> str:
    """A text without the user, the password and the query of the addresses in it.

    >>> without_secrets("no answer from https://me:secret@host:5000/x?token=abc (refused)")
    'no answer from https://host:5000/x?... (refused)'
    """
    text = re.sub(r"(?<=://)(?!/)\S*@", "", text)
    return re.sub(r"(://[^/\s][^\s?]*\?)[^\s)'\"]+", r"\1...", text)


def problem_of(tracking_uri: str) -> str:
    """Why ``--tracking-uri`` cannot be that, in the house's one sentence; "" when it can.

    >>> problem_of("https://me:secret@host:5000"), problem_of("sqlite:////data/mlflow.db"), problem_of("./mlruns")
    ('', '', '')
    """
    why = _why_not(tracking_uri)
    if not why:
        return ""
    rule = "an address of MLflow, such as http://127.0.0.1:5000 or sqlite:////PATH/mlflow.db"
    remedy = "Leave it out for mlflow.db below --out."
    if why == _NO_FILES:
        remedy = "Name the server in front of it: mlflow server --backend-store-uri DATABASE --serve-artifacts."
    got = f"{without_secrets(tracking_uri) or repr(tracking_uri)} ({why})"
    return f"--tracking-uri must be {rule}; got {got}. {remedy}"


def _why_not(tracking_uri: str) -> str:
    try:
        parts = urlsplit(tracking_uri)
        host = parts.hostname
    except ValueError:  # whose text may hold the password
        return "it cannot be read"
    try:
        _ = parts.port
    except ValueError:
        return "its port is none"
    if _kind(parts.scheme) in _BEHIND_SERVERS:
        return _NO_FILES
    known = _SCHEMES | {point.name for point in entry_points(group="mlflow.tracking_store")}
    if _kind(parts.scheme) not in known:
        return "MLflow knows no such scheme"
    if not tracking_uri.strip() or (parts.scheme in ("http", "https") and not host):
        return "it names no host"
    return ""


def _kind(scheme: str) -> str:
    """What a scheme speaks to, without the driver that it may name (``postgresql+psycopg``)."""
    return scheme.partition("+")[0]
