"""SQLite files as tracking stores: how they are addressed, whether they can be written, where their artifacts lie."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

from engram.benchmarks.sink.trouble import refuse

_SCHEME = "sqlite:///"
_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "ceph", "9p", "fuse.sshfs"}


def uri_of(database: Path) -> str:
    """The address of a database file, whatever signs its path holds.

    >>> uri_of(Path("/data/a b?/mlflow.db")), uri_of(Path("/data/a%20b/mlflow.db"))
    ('sqlite:////data/a b%3F/mlflow.db', 'sqlite:////data/a%2520b/mlflow.db')
    """
    return _SCHEME + str(database).replace("%", "%25").replace("?", "%3F")


def database_of(uri: str) -> Path | None:
    """The file that an address means; None where it means no SQLite file.

    >>> str(database_of("sqlite:////data/a%2520b/mlflow.db?timeout=5")), database_of("http://host:5000")
    ('/data/a%20b/mlflow.db', None)
    """
    return Path(unquote(uri.removeprefix(_SCHEME).partition("?")[0])) if uri.startswith(_SCHEME) else None


def artifacts_of(database: Path) -> str:
    """Where the files of a database's runs lie: beside it. MLflow's own default depends on where the user stands."""
    return (database.resolve().parent / "mlartifacts").as_uri()


def probe(database: Path, patience: float, *, write: bool) -> None:
    """Fail within ``patience`` seconds when the database is locked, read-only or none; mlflow waits 20 s per call.

    Raises:
        sqlite3.Error: it cannot be written (or, without ``write``, read) now.
    """
    if not database.exists():
        return
    with closing(sqlite3.connect(database, timeout=patience)) as connection:
        connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.rollback()


def use_wal(database: Path) -> None:
    """Let readers (the UI) and the writer work at once; lasts. Never over a network, where it breaks."""
    if file_system(database) in _NETWORK_FILE_SYSTEMS:
        return
    with closing(sqlite3.connect(database)) as connection:
        # Asked through SQLite: whoever opens and closes the file itself gives up all of this process's locks on it.
        if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            connection.execute("PRAGMA journal_mode=WAL")


def move_artifacts(database: Path, old: str, new: str) -> None:
    """Let a store whose folder was moved or copied have its files beside it: MLflow keeps the old place for good."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?", (new, old))
        below = (new, len(old) + 1, len(old) + 1, f"{old}/")
        query = "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) WHERE substr(artifact_uri, 1, ?) = ?"
        connection.execute(query, below)
        for column in ("source", "storage_location"):  # of registered models
            where = f"UPDATE model_versions SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?"  # noqa: S608
            connection.execute(where, below)


def file_system(path: Path) -> str:
    """The type of the file system below ``path`` where the system says so, else empty."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    holding = [mount for mount in mounts if path.resolve().is_relative_to(mount[1].replace("\\040", " "))]
    return max(holding, key=lambda mount: len(mount[1]), default=["", "", ""])[2]


def hold_engine(uri: str, database: Path) -> None:
    """Have mlflow use the very file, and let go of one that was deleted: it would go on writing to what is no more.

    Left alone it makes the folder that the address spells, escapes and all.
    """
    from mlflow.store.db.utils import create_sqlalchemy_engine
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry

    engines = SqlAlchemyStore._engine_map
    if not database.exists() and uri in engines:
        engines.pop(uri).dispose()
        _tracking_store_registry._get_store_with_resolved_uri.cache_clear()
    if uri not in engines:
        database.parent.mkdir(parents=True, exist_ok=True)
        if not database.exists():
            _make(database)
        engine = create_sqlalchemy_engine(uri)
        if Path(engine.url.database or "") != database:  # before 2.1 SQLAlchemy does not undo escapes
            raise refuse("SQLAlchemy", "2.1 or newer for such a path", database, "Install it.")
        engines[uri] = engine


def _make(database: Path) -> None:
    """Make an empty store under another name and give it its own once it is whole.

    MLflow's first migration takes seconds, or a minute on a busy machine, and whatever ends the process meanwhile would
    leave a file that every later one fails on.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    making = database.with_name(f"{database.name}.making")
    for left in database.parent.glob(f"{making.name}*"):
        left.unlink()
    SqlAlchemyStore(uri_of(making), artifacts_of(database))
    SqlAlchemyStore._engine_map.pop(uri_of(making)).dispose()
    making.replace(database)
