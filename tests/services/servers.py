"""PostgreSQL and MLflow's server, real ones, on loopback ports of their own and below a folder that is thrown away.

    with Postgres(folder / "postgres") as database, Tracking(folder / "mlflow", database.uri) as tracking:
        ...                     # tracking.uri is for --tracking-uri, database.connect() is to look into the tables
        tracking.kill()         # as kill -9 would: all processes of it at once
        tracking.start()        # at the same address, with all it had

Each has ``start``, ``kill``, ``stop`` and ``restart`` (kill, then start); leaving ``with`` stops it. They die with the
process that started them. Nothing here needs pytest. Run as root, PostgreSQL has a user of its own.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PATIENCE = 180.0
"""Seconds that only a hung server takes to start, on a machine with much else to do."""
_PLACES = "/usr/lib/postgresql/*/bin"


def missing() -> str:
    """What is not here of what the servers need, in one line; "" when all is."""
    if _program("postgres") is None or _program("initdb") is None:
        return "PostgreSQL's programs are not installed (Debian: apt-get install postgresql)"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed (pip install 'engram[services]')"
    if os.geteuid() == 0 and (_user() is None or shutil.which("setpriv") is None):
        return "PostgreSQL does not run as root, and there is no other user or no setpriv"
    return ""


class Server:
    """A process with children: started, killed and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._environment = dict(os.environ)  # as it is now: whoever starts it again may have changed theirs
        folder.mkdir(parents=True)

    def __enter__(self) -> Any:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self.environment(),
            )
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{type(self).__name__} did not start:\n{self.log()[-3000:]}")
            time.sleep(0.1)

    def environment(self) -> dict[str, str]:
        return dict(self._environment)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def kill(self) -> None:
        """End all its processes as kill -9 would, and wait until they are gone."""
        if self.process is None:
            return
        ended = [self.process.pid, *descendants(self.process.pid)]
        for number in ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self.process.wait()
        wait_until(lambda: not any(map(_runs, ended)))
        self.process = None

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask it to end, and kill what does not."""
        if self.process is not None:
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        self.kill()

    def restart(self) -> None:
        self.kill()
        self.start()


class Postgres(Server):
    """A scratch cluster with one database, ``mlflow``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.password = secrets.token_hex(8)
        # not below `folder`, which may be for its owner alone, who PostgreSQL must not be
        self.place = Path(tempfile.mkdtemp(prefix="engram-postgres-"))
        secret = self.place / "password"
        secret.write_text(self.password)
        if os.geteuid() == 0:
            for path in (self.place, secret):
                shutil.chown(path, _user())
        initdb = [str(_program("initdb")), "-D", str(self.place / "data"), "-U", "mlflow", "--pwfile", str(secret)]
        more = ["-A", "scram-sha-256", "-E", "UTF8", "--no-sync", "--locale", "C"]
        done = subprocess.run([*_as_user(), *initdb, *more], capture_output=True, text=True, cwd=self.place)
        if done.returncode:
            shutil.rmtree(self.place)
            raise RuntimeError(f"initdb failed:\n{done.stderr}")

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        shutil.rmtree(self.place, ignore_errors=True)

    @property
    def uri(self) -> str:
        return f"postgresql://mlflow:{self.password}@127.0.0.1:{self.port}/mlflow"

    def command(self) -> list[str]:
        # what a killed process wrote is in the system's memory: only a power cut would need fsync
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        given = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*_as_user(), str(_program("postgres")), "-D", str(self.place / "data"), "-p", str(self.port), *given]

    def answers(self) -> bool:
        import psycopg

        try:
            self.connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def start(self) -> None:
        super().start()
        if not self.rows("select 1 from pg_database where datname = 'mlflow'", database="postgres"):
            connection = self.connect("postgres")
            connection.autocommit = True
            connection.cursor().execute("create database mlflow")
            connection.close()

    def stop(self, number: int = signal.SIGINT) -> None:
        super().stop(number)  # its fast shutdown

    def connect(self, database: str = "mlflow") -> Any:
        """A psycopg connection."""
        import psycopg

        return psycopg.connect(self.uri.rpartition("/")[0] + f"/{database}", connect_timeout=10)

    def rows(self, query: str, *values: object, database: str = "mlflow") -> list[tuple[Any, ...]]:
        """What a query finds, on a connection of its own."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(query, values)
                return cursor.fetchall()
        finally:
            connection.close()


class Tracking(Server):
    """MLflow's server on any database, with artifacts over HTTP. Each of its ``processes`` takes seconds to start."""

    def __init__(self, folder: Path, store: str, processes: int = 2) -> None:
        super().__init__(folder)
        self.store = store
        self.processes = processes

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        artifacts = ["--serve-artifacts", "--artifacts-destination", str(self.folder / "artifacts")]
        address = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", str(self.processes)]
        server = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.store]
        return [*_dies_with_us(), *server, *artifacts, *address]

    def environment(self) -> dict[str, str]:
        return super().environment() | {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "OMP_NUM_THREADS": "1",
        }

    def answers(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
            return answer.status == 200
        return False


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def descendants(process: int) -> Iterator[int]:
    """The processes below one, the nearest first."""
    above: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            above.setdefault(parent, []).append(int(folder.name))
    found = above.get(process, [])
    for child in found:
        yield child
        found += above.get(child, [])


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Poll until something is true.

    Raises:
        TimeoutError: it never was.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("waited in vain")
        time.sleep(0.02)


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _program(name: str) -> str | None:
    """Debian keeps the programs of a server out of the path."""
    places = sorted(map(str, Path("/").glob(_PLACES[1:])), key=lambda place: [*map(int, re.findall(r"\d+", place))])
    return next((found for place in [*reversed(places), None] if (found := shutil.which(name, path=place))), None)


def _user() -> str | None:
    """Whom PostgreSQL runs as where we are root, which it refuses to be."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None)


def _as_user() -> list[str]:
    if os.geteuid() != 0:
        return _dies_with_us()
    user = pwd.getpwnam(str(_user()))
    return [*_dies_with_us(), f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _dies_with_us() -> list[str]:
    """The beginning of a command whose process is killed when ours ends, however it does."""
    program = shutil.which("setpriv")
    return [] if program is None else [program, "--pdeathsig", "KILL"]
