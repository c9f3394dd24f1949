"""The files of a run: what the trial wrote, its model, figures and tables. What was told once is not told again."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from engram.backbone.atomic import write_atomically
from engram.backbone.tables import as_csv
from engram.benchmarks.records.inside import inside, open_inside
from engram.benchmarks.records.layout import sweep_dir
from engram.benchmarks.records.search import SEARCH
from engram.benchmarks.records.trials import Record, Sweep
from engram.benchmarks.sink.params import clean
from engram.benchmarks.sink.state import short_hash

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from engram.benchmarks.sink.runs import Known

NAMES = ("config.json", "provenance.json", "result.json", "error.json", "log.txt")
LARGEST = 512 * 2**20
"""Bytes of a file that is told; a tag names those that are larger."""
_UNSAFE = re.compile(r"[#?%\\:\x00-\x1f\x7f\ud800-\udfff]")  # what an address or MLflow reads otherwise
_PART, _PLACE = 160, 400  # bytes of a file's name, characters of a place in a run


def files_of(record: Record) -> tuple[dict[str, Path], dict[str, str]]:
    """(files of the trial by their places in its run, why each other one stays where it is).

    They are what the runner wrote about it, and what the experiment calls its artifacts (a model, say), folders file by
    file; nothing that lies elsewhere, whatever a name or a link says.
    """
    found: dict[str, Path] = {}
    left: dict[str, str] = {}
    for name in (*(name for name in NAMES if os.path.lexists(record.folder / name)), *_artifacts(record)):
        try:
            path = inside(record.folder, name)
            size = path.stat().st_size
        except OSError as error:
            left[name] = error.strerror or "no file"
            continue
        if not path.is_file():
            left[name] = "no plain file"
        elif size > LARGEST:
            left[name] = f"{size / 2**20:.0f} MiB"
        else:
            found[place_of(name)] = path
    return found, left


def _artifacts(record: Record) -> Iterator[str]:
    """The paths of the experiment's artifacts in the trial's folder."""
    for named in map(str, record.result.get("artifacts", {}).values()):
        try:
            folder = inside(record.folder, named)
        except OSError:
            yield named
            continue
        if folder.is_dir():
            home = record.folder.resolve()
            for here, _, files in os.walk(folder):
                yield from (Path(here, file).relative_to(home).as_posix() for file in sorted(files))
        else:
            yield named


def place_of(name: str) -> str:
    """A path as the place of a file in a run, of which MLflow makes addresses and paths.

    A mended one keeps its ending and gets a hash, so that two never become one.

    >>> place_of("model/weights.safetensors"), place_of("a#b.csv"), len(place_of("x" * 999))
    ('model/weights.safetensors', 'a_b-828d33.csv', 167)
    """
    parts = []
    for part in _UNSAFE.sub("_", name[:_PLACE]).split("/"):
        short = part.encode()[:_PART].decode(errors="ignore").strip()
        parts.append(short.lstrip(". ") if short.startswith("..") else short)
    place = "/".join(part for part in parts if part not in ("", "."))
    if place == name:
        return name
    ending = next(iter(re.findall(r"\.[A-Za-z0-9]{1,10}$", name)), "")
    return f"{place.removesuffix(ending).rstrip('/')}-{short_hash(name)}{ending}"


def drawn(record: Record) -> dict[str, str]:
    """The trial's figures as SVG and its tables as CSV, by their places in the run."""
    from engram.benchmarks.report.figures import (
        figure,  # with statistics, which asking whether there is news does not need
    )
    from engram.benchmarks.report.picture import picture

    result: Mapping[str, Any] = record.result
    texts = {}
    for name in result.get("figures") or {}:
        for chart in figure(name, {record.trial: [record]}):
            texts[place_of(f"figures/{name}.svg")] = picture(chart)
    for name, rows in (result.get("tables") or {}).items():
        texts[place_of(f"tables/{name}.csv")] = as_csv(rows)
    return {place: clean(text) for place, text in texts.items()}


def sweep_texts(sweep: Sweep, out: Path) -> dict[str, str]:
    """A sweep's plan, its suite and its report, by their places in the run."""
    from engram.benchmarks.report.page import page
    from engram.benchmarks.report.subject import find

    texts = {"report.html": clean(page(find(out, sweep.name))), "suite.toml": clean(sweep.suite)}
    for name in ("plan.json", SEARCH):  # of a search that still runs the record alone says what was proposed
        if (sweep_dir(out, sweep.name) / name).exists():
            with open_inside(sweep_dir(out, sweep.name), name) as file:
                texts[name] = file.read().decode("utf-8")
    return texts


def send(client: MlflowClient, run: Known, found: Mapping[str, Path], told: dict[str, str]) -> Iterator[None]:
    """Hand files over, those that ``told`` does not know as they are now; yields after uploads, to be written down."""
    store = _local(run)
    for place, file in found.items():
        about = file.stat()
        stamp = f"{about.st_size}:{about.st_mtime_ns}"
        if told.get(place) == stamp:
            continue
        linked = store is not None and _link(file, store, place)
        if not linked:
            _upload(client, run.run, file, PurePosixPath(place))
        told[place] = stamp
        if not linked:
            yield


def put(client: MlflowClient, run: Known, name: str, text: str) -> None:
    """Give a run a file that says ``text``."""
    store = _local(run)
    if store is None or not (store / name).parent.resolve().is_relative_to(store.resolve()):
        client.log_text(run.run, text, name)
        return
    (store / name).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(store / name, text.encode(), durable=False)


def _upload(client: MlflowClient, run: str, file: Path, place: PurePosixPath) -> None:
    parent = None if place.parent == PurePosixPath() else place.parent.as_posix()
    if file.name == place.name:
        client.log_artifact(run, str(file), parent)
        return
    with tempfile.TemporaryDirectory() as scratch:  # MLflow takes the name from the file
        (Path(scratch) / place.name).symlink_to(file)
        client.log_artifact(run, str(Path(scratch) / place.name), parent)


def _local(run: Known) -> Path | None:
    """The folder of the run's files when it is one of this machine."""
    parts = urlsplit(run.files)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" and not parts.netloc else None


def _link(file: Path, store: Path, name: str) -> bool:
    """Let the file stand at a second place: a model of many MB then takes no room twice, and no time."""
    place = store / name
    fresh = place.with_name(f".{place.name}.{os.getpid()}")
    if not place.parent.resolve().is_relative_to(store.resolve()):
        return False  # a link leads out of the store: MLflow refuses that
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, fresh)
        fresh.replace(place)
    except OSError:
        return False  # another file system, or one without links: it is copied
    finally:
        fresh.unlink(missing_ok=True)  # still there where both were one file already
    return True
