"""Commands that read what trials left: compare, report, sync, promote and ui."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from engram.backbone.errors import must
from engram.benchmarks.commands.flags import Comparing, Interface, Promoting, Reporting, Tracked
from engram.benchmarks.given import Given
from engram.benchmarks.records.stored import Damaged
from engram.benchmarks.records.trials import Record, read_sweep, sweep_names, trial_names
from engram.benchmarks.saying import say


def compare(given: Given[Comparing]) -> int:
    """``engram compare SWEEP|TRIAL...``."""
    flags = given.flags
    from engram.benchmarks.comparing import compare as work_out

    comparison = work_out(flags.out, *given.words, wanted=flags, tracking_uri=flags.tracking_uri)
    if flags.to is not None:
        from engram.benchmarks.compare.export import write

        write(comparison, flags.to)
    if flags.json:
        print(json.dumps(comparison.to_json()))
    else:
        from rich.console import Console

        from engram.benchmarks.compare.terminal import render

        render(comparison, Console())
    return comparison.exit_code


def report(given: Given[Reporting]) -> int:
    """``engram report SWEEP|TRIAL``: print the path of the file."""
    (what,), flags = given.words, given.flags
    from engram.benchmarks.report import write_report

    try:
        print(write_report(flags.out, what, flags.objectives, flags.tasks))
    except OSError as error:
        got = f"{flags.out} ({error.strerror}: {error.filename})"
        raise must("--out", "a folder that can be written", got, "Copy it to where you may write.") from None
    return 0


def sync(given: Given[Tracked]) -> int:
    """``engram sync``: tell the tracking store what it lacks; 1 when it is not there or did not take it all."""
    flags = given.flags
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


def promote(given: Given[Promoting]) -> int:
    """``engram promote TRIAL NAME``: put a trial's network into MLflow's model registry; print its address there."""
    (text, name), flags = given.words, given.flags
    from engram.benchmarks.records.trials import find_trial
    from engram.benchmarks.sink.registry import promote as register

    folder = find_trial(flags.out, text, "TRIAL")[1]
    found = register(folder.parents[1], folder, name, flags.alias, flags.tracking_uri)
    print(f"models:/{found.name}@{flags.alias}" if flags.alias else f"models:/{found.name}/{found.version}")
    say(f"engram: version {found.version}{'' if found.fresh else ', which it was already'}: trial {folder.name}")
    return 0


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


def ui(given: Given[Interface]) -> int:
    """``engram ui``: MLflow's own interface on the loopback address, until ^C."""
    flags = given.flags
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
