"""The files of a run: what the trial wrote, its model, figures and tables. What was told once is not told again."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from benchmarks.records import Record, Sweep

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

NAMES = ("config.json", "provenance.json", "result.json", "error.json", "log.txt")
LARGEST = 512 * 2**20
"""Bytes of a file that is told; a tag names those that are larger."""


def small_files(record: Record) -> dict[str, Path]:
    """What the runner wrote about a trial, by its place in the run."""
    return {name: record.folder / name for name in NAMES if (record.folder / name).is_file()}


def own_files(record: Record) -> dict[str, Path]:
    """What the experiment calls its artifacts (a model, say), folders file by file."""
    found = {}
    for named in record.result.get("artifacts", {}).values():
        path = record.folder / str(named)
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                found[file.relative_to(record.folder).as_posix()] = file
    return found


def drawn(record: Record) -> dict[str, str]:
    """The trial's figures as SVG and its tables as CSV, by their places in the run."""
    from benchmarks.report.curves import figure  # with statistics, which asking whether there is news does not need
    from benchmarks.report.picture import picture

    result: Mapping[str, Any] = record.result
    texts = {}
    for name in result.get("figures") or {}:
        for chart in figure(name, {record.trial: [record]}):
            texts[f"figures/{_plain(name)}.svg"] = picture(chart)
    for name, rows in (result.get("tables") or {}).items():
        texts[f"tables/{_plain(name)}.csv"] = as_csv(rows)
    return texts


def as_csv(rows: list[dict[str, Any]]) -> str:
    r"""Rows with their names in the first line.

    >>> as_csv([{"steps": 1, "accuracy": 0.5}, {"steps": 2, "loss": None}])
    'steps,accuracy,loss\n1,0.5,\n2,,\n'
    """
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def sweep_texts(sweep: Sweep, out: Path) -> dict[str, str]:
    """A sweep's plan, its suite and its report, by their places in the run."""
    from benchmarks.report.page import page
    from benchmarks.report.write import find

    plan = (out / "sweeps" / sweep.name / "plan.json").read_text(encoding="utf-8")
    return {"report.html": page(find(out, sweep.name)), "plan.json": plan, "suite.toml": sweep.suite}


def send(client: MlflowClient, run: Run, found: Mapping[str, Path], told: dict[str, str]) -> Iterator[None]:
    """Hand files over, those that ``told`` does not know as they are now; yields after each, to be written down."""
    for place, file in found.items():
        about = file.stat()
        stamp = f"{about.st_size}:{about.st_mtime_ns}"
        if told.get(place) == stamp or about.st_size > LARGEST:
            continue
        store = _local(run)
        if store is None or not _link(file, store / place):
            parent = PurePosixPath(place).parent.as_posix()
            client.log_artifact(run.info.run_id, str(file), None if parent == "." else parent)
        told[place] = stamp
        yield


def left_out(found: Mapping[str, Path]) -> str:
    """The files that are too large, with their sizes; "" when there is none."""
    sizes = {place: file.stat().st_size for place, file in found.items()}
    return ", ".join(f"{place} ({size / 2**20:.0f} MiB)" for place, size in sizes.items() if size > LARGEST)


def _local(run: Run) -> Path | None:
    """The folder of the run's files when it is one of this machine."""
    parts = urlsplit(run.info.artifact_uri or "")
    return Path(url2pathname(parts.path)) if parts.scheme == "file" and not parts.netloc else None


def _link(file: Path, place: Path) -> bool:
    """Let the file stand at a second place: a model of many MB then takes no room twice, and no time."""
    fresh = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, fresh)
        fresh.replace(place)
    except OSError:
        return False  # another file system, or one without links: it is copied
    finally:
        fresh.unlink(missing_ok=True)  # still there where both were one file already
    return True


def _plain(name: str) -> str:
    """A name as part of a path.

    >>> _plain("accuracy against steps"), _plain("../x")
    ('accuracy-against-steps', 'x')
    """
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "unnamed"
