"""Commands that read what trials left: compare, report, sync, ui and doctor."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from engram.backbone.errors import must
from engram.benchmarks.commands.catalogue import Command
from engram.benchmarks.commands.command import read, say
from engram.benchmarks.commands.flags import Comparing, Interface, Showing, Tracked, Where
from engram.benchmarks.records.stored import Damaged
from engram.benchmarks.records.trials import Record, read_sweep, sweep_names, trial_names


def compare(name: str, command: Command, argv: list[str]) -> int:
    """``engram compare SWEEP``."""
    found = read(name, command, argv, Comparing)
    if found is None:
        return 0
    (sweep,), flags = found
    from engram.benchmarks.compare.groups import compare as work_out

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
    from engram.benchmarks.report import write_report

    try:
        print(write_report(flags.out, what))
    except OSError as error:
        got = f"{flags.out} ({error.strerror}: {error.filename})"
        raise must("--out", "a folder that can be written", got, "Copy it to where you may write.") from None
    return 0


def sync(name: str, command: Command, argv: list[str]) -> int:
    """``engram sync``: tell the tracking store what it lacks; 1 when it is not there or did not take it all."""
    found = read(name, command, argv, Tracked)
    if found is None:
        return 0
    flags = found[1]
    if not flags.out.is_dir():
        raise must("--out", "a folder with trials", flags.out, "Run something first: engram quickstart")
    from engram.benchmarks.sink import Sink
    from engram.benchmarks.sink.trouble import refusals, sync_command

    sink = Sink(flags.out, flags.tracking_uri)
    trials = trial_names(flags.out)
    parts, damaged = _parts(flags.out, trials)
    for sweep, members in [*parts, (None, trials)]:
        if sink.needs_sync(members, sweep):
            done = sink.sync(members, sweep, now=True)
            if not done.ok:
                return _not_complete(done.message)
    held = sink.count(trials)
    if not held.ok:
        return _not_complete(held.message)
    if held.message:
        say(f"engram: {held.message}")
    for line in refusals(sink.refused, sync_command(flags.out, flags.tracking_uri)):
        say(f"engram: {line}")
    print(f"{held.trials if held.trials == len(trials) else f'{held.trials} of {len(trials)}'} trials are in MLflow")
    return 1 if sink.refused or damaged else 0


def _not_complete(why: str) -> int:
    say(f"engram: MLflow is not complete: {why}")
    return 1


def _parts(out: Path, trials: list[str]) -> tuple[list[tuple[str, list[str]]], bool]:
    """The sweeps with their trials, and whether anything is damaged, each of which is said in a line."""
    found, said = [], [f"trial {name}: {why}" for name in trials if (why := Record(out / "trials" / name).damage)]
    for name in sweep_names(out):
        try:
            found.append((name, [record.trial for record in read_sweep(out, name).records]))
        except Damaged as error:
            said.append(str(error))
    for line in said:
        say(f"engram: {line}")
    return found, bool(said)


def ui(name: str, command: Command, argv: list[str]) -> int:
    """``engram ui``: MLflow's own interface on the loopback address, until ^C."""
    found = read(name, command, argv, Interface)
    if found is None:
        return 0
    flags = found[1]
    from engram.benchmarks.sink.database import uri_of
    from engram.benchmarks.sink.trouble import sync_command

    out = flags.out.resolve()
    if not (out / "mlflow.db").exists():
        remedy = f"Run something first, or: {sync_command(flags.out, None)}"
        raise must("--out", "a folder with mlflow.db", flags.out, remedy)
    say(f"http://127.0.0.1:{flags.port} (end with ^C)")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    if {"%", "?"} & set(str(out)):  # mlflow's server makes the folder that the address spells, escapes and all
        plain = Path(tempfile.mkdtemp(prefix="engram-ui-")) / "runs"
        plain.symlink_to(out)
        out = plain
    server = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(flags.port)]
    sys.stdout.flush()
    os.execv(  # noqa: S606 - this process becomes the server, so that ^C and signals reach it
        sys.executable, [sys.executable, *server, "--backend-store-uri", uri_of(out / "mlflow.db")]
    )


def doctor(name: str, command: Command, argv: list[str]) -> int:
    """``engram doctor``."""
    found = read(name, command, argv, Showing)
    if found is None:
        return 0
    from engram.benchmarks.commands.doctor import doctor as check

    return check(found[1].out, as_json=found[1].json)
