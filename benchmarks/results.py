"""Commands that read what trials left: compare, report, sync, ui and doctor."""

from __future__ import annotations

import json
import os
import sys

from backbone.errors import must
from benchmarks.catalogue import Command
from benchmarks.command import read, say
from benchmarks.flags import Comparing, Interface, Showing, Tracked, Where
from benchmarks.records import read_sweep, sweep_names, trial_names


def compare(name: str, command: Command, argv: list[str]) -> int:
    """``engram compare SWEEP``."""
    found = read(name, command, argv, Comparing)
    if found is None:
        return 0
    (sweep,), flags = found
    from benchmarks.compare import compare as work_out

    comparison = work_out(flags.out, sweep, flags.by, flags.metric, flags.fail_if, flags.tracking_uri)
    if flags.json:
        print(json.dumps(comparison.to_json()))
    else:
        from rich.console import Console

        comparison.render(Console())
    return comparison.exit_code


def report(name: str, command: Command, argv: list[str]) -> int:
    """``engram report SWEEP|TRIAL``: print the path of the file."""
    found = read(name, command, argv, Where)
    if found is None:
        return 0
    (what,), flags = found
    from benchmarks.report import write_report

    print(write_report(flags.out, what))
    return 0


def sync(name: str, command: Command, argv: list[str]) -> int:
    """``engram sync``: tell the tracking store what it lacks; 1 when it could not be reached."""
    found = read(name, command, argv, Tracked)
    if found is None:
        return 0
    flags = found[1]
    if not flags.out.is_dir():
        raise must("--out", "a folder with trials", flags.out, "Run something first: engram quickstart")
    from benchmarks.sink import Sink

    sink = Sink(flags.out, flags.tracking_uri)
    trials = trial_names(flags.out)
    parts = [
        (name, [record.trial for record in read_sweep(flags.out, name).records]) for name in sweep_names(flags.out)
    ]
    for sweep, members in [*parts, (None, trials)]:
        if sink.needs_sync(members, sweep):
            done = sink.sync(members, sweep, now=True)
            if not done.ok:
                say(f"engram: MLflow is not complete: {done.message}")
                return 1
    print(f"{len(trials)} trials are in MLflow")
    return 0


def ui(name: str, command: Command, argv: list[str]) -> int:
    """``engram ui``: MLflow's own interface on the loopback address, until ^C."""
    found = read(name, command, argv, Interface)
    if found is None:
        return 0
    flags = found[1]
    database = flags.out.resolve() / "mlflow.db"
    if not database.exists():
        raise must(
            "--out", "a folder with mlflow.db", flags.out, f"Run something first, or: engram sync --out {flags.out}"
        )
    say(f"http://127.0.0.1:{flags.port} (end with ^C)")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    server = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(flags.port)]
    sys.stdout.flush()
    os.execv(  # noqa: S606 - this process becomes the server, so that ^C and signals reach it
        sys.executable, [sys.executable, *server, "--backend-store-uri", f"sqlite:///{database}"]
    )


def doctor(name: str, command: Command, argv: list[str]) -> int:
    """``engram doctor``."""
    found = read(name, command, argv, Showing)
    if found is None:
        return 0
    from benchmarks.doctor import doctor as check

    return check(found[1].out, as_json=found[1].json)
