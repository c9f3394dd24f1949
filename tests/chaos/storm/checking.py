"""What must be so after a storm: asked of the folders, of PostgreSQL itself, of the kernel."""

from __future__ import annotations

import fcntl
import time
from collections import Counter
from pathlib import Path

from processes import ours
from servers import Postgres, Tracking
from sweeping import Sweep

from engram.benchmarks.records.trials import Record

PATIENCE = 60.0
"""Seconds in which workers whose driver is gone must have gone, too, on a busy machine."""
RUNS = """
select t.value, r.run_uuid, r.status, e.value from runs r
join tags t on t.run_uuid = r.run_uuid and t.key = 'engram.trial'
left join tags e on e.run_uuid = r.run_uuid and e.key = 'engram.execution'
where r.lifecycle_stage = 'active'
"""


def same_trials(sweep: Sweep, undisturbed: Sweep) -> int:
    """Every trial is done and measured what it measures undisturbed, each thing once; how many measurements."""
    count = 0
    for calm in undisturbed.folders():
        record = Record(sweep.out / "trials" / calm.name)
        assert (record.status, record.damage) == ("done", ""), f"{record.folder}: {record.status} {record.damage}"
        found = [(line.name, line.step, line.value) for line in record.ledger()]
        assert len({each[:2] for each in found}) == len(found), f"doubled in {record.folder}"
        expected = Record(calm)
        assert sorted(found) == sorted((line.name, line.step, line.value) for line in expected.ledger()), record.folder
        for part in ("metrics", "tables", "figures"):
            assert record.result[part] == expected.result[part], f"{part} of {record.folder}"
        assert (record.folder / "path.txt").read_bytes() == (calm / "path.txt").read_bytes(), record.folder
        assert not (record.folder / "ckpt").exists(), record.folder
        count += len(found)
    assert {folder.name for folder in sweep.folders()} == {folder.name for folder in undisturbed.folders()}
    return count


def told_once(sweeps: list[Sweep], database: Postgres, tracking: Tracking) -> int:
    """All that ledgers and results hold stands in PostgreSQL exactly once, all files on the server; how many rows."""
    from engram.benchmarks.sink.state import execution

    assert (
        database.rows("select run_uuid, name from runs where status <> 'FINISHED' and lifecycle_stage = 'active'") == []
    )
    found = database.rows(RUNS)
    runs = {(trial, of): run for trial, run, _, of in found}
    wanted = {(folder.name, execution(folder)): folder for sweep in sweeps for folder in sweep.folders()}
    assert len(found) == len(runs) and set(runs) == set(wanted), set(runs) ^ set(wanted)
    rows: dict[str, list[tuple[object, ...]]] = {run: [] for run in runs.values()}
    for run, *row in database.rows("select run_uuid, key, step, value, timestamp from metrics"):
        rows.get(run, []).append(tuple(row))
    artifacts = {path.parents[1].name: path for path in tracking.folder.glob("artifacts/**/result.json")}
    for key, folder in wanted.items():
        record, there = Record(folder), Counter(rows[runs[key]])
        last = record.ledger()[-1]
        logged = Counter((line.name, line.step, line.value, line.t) for line in record.ledger())
        names = {line.name for line in record.ledger()}
        finals = {f"final/{name}" if name in names else name: value for name, value in record.metrics.items()}
        logged += Counter((name, last.step, value, last.t) for name, value in finals.items())
        assert there == logged, f"{folder}: missing {logged - there}, too many {there - logged}"
        assert artifacts[runs[key]].read_bytes() == (folder / "result.json").read_bytes(), folder
    parents = database.rows(
        "select r.run_uuid from runs r join tags t on t.run_uuid = r.run_uuid and t.key = 'engram.sweep'"
        " where r.lifecycle_stage = 'active'"
    )
    assert len(parents) == len(sweeps), parents
    return sum(map(len, rows.values()))


def nobody_left(token: str, seconds: float = PATIENCE) -> None:
    """No process of the storm lives any more."""
    deadline = time.monotonic() + seconds
    while left := ours(token):
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.2)


def nothing_held(folder: Path) -> None:
    """Every lock can be taken, and nothing half written lies about."""
    for path in folder.rglob("*lock"):
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # the next driver that uses Ray on this machine removes what nodes are to look for
    left = [path for path in folder.rglob(".*") if path.name != ".sink.lock" and not path.name.startswith(".node-")]
    assert left == [], f"left behind: {left}"
