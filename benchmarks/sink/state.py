"""What the sink remembers about each trial, and what it has yet to tell the tracking store; no mlflow here."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Lt
from pydantic import TypeAdapter, ValidationError

from engram.backbone.atomic import remove_half_written
from engram.benchmarks.records.inside import open_inside
from engram.benchmarks.records.layout import MACHINES
from engram.benchmarks.records.lines import LEDGER, Line, first_line, parse_lines
from engram.benchmarks.records.meaning import bounds_of, declared
from engram.benchmarks.records.stored import held, write_json
from engram.benchmarks.records.trials import Record, Sweep

YOUNG_MS = 5000  # of a trial that runs: many a one is over sooner, and then told once
BATCH = 1000  # metrics a request may carry
TELLING = 2  # raised when what stands in stores has to be told anew
CONFIG_TAG = "engram.config"  # a trial's options as JSON; what one tag does not hold goes on in .1 and further
ELSEWHERE_TAG = "engram.elsewhere"  # which experiments hold trials of a sweep that another one told first
ASIDE_TAG = "engram.aside"  # why a run is not complete and will not be
_TAIL = 256  # bytes before the offset that show whether the ledger is still the one that was read
_ENDED = {"done", "failed", "pruned"}  # what becomes of a trial that nobody will go on with
_REFUSED = re.compile(r"[^/\w.\- ]")


@dataclass
class Mark:
    """How far one trial has been told to one store.

    ``store`` names the store's incarnation, for a deleted one comes back new; ``adopted`` the sweeps it was put under;
    ``files`` which it has, each with its size and time; ``aside`` why the store does not take the trial.
    """

    store: str = ""
    run: str = ""
    offset: Annotated[int, Ge(0), Lt(2**63)] = 0
    tail: str = ""
    told: str = ""
    adopted: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    aside: str = ""


_MARK = TypeAdapter(Mark)


class Memory:
    """A ``sink.json``: one mark per tracking address, replaced as a whole so that no kill leaves half of one."""

    def __init__(self, path: Path, address: str) -> None:
        self.path = path
        self.address = address

    def load(self, store: str) -> Mark:
        kept = held(self.path).get(self.address)
        if not isinstance(kept, dict) or kept.get("store") != store:
            return Mark(store=store)
        try:
            return _MARK.validate_python(kept)
        except ValidationError:  # told again, which changes nothing
            return Mark(store=store)

    def save(self, mark: Mark) -> None:
        remove_half_written(self.path.parent, (self.path.name,))  # a worker elsewhere may be writing others
        write_json(self.path, {**held(self.path), self.address: asdict(mark)})


@lru_cache(4096)
def metric_key(name: str) -> str:
    """``name`` as MLflow accepts it. Mended names end in a hash, so that two names never become one.

    >>> metric_key("test/accuracy"), metric_key("top@5")
    ('test/accuracy', 'top_5-e67973')
    """
    mended = _REFUSED.sub("_", name)[:200].strip("/") or "_"
    mended = posixpath.normpath(mended.replace("..", "_"))
    if mended == "." or mended != name:
        return f"{mended.strip('.')}-{short_hash(name)}"
    return name


def short_hash(text: str) -> str:
    """Enough of a hash to tell two texts apart; a text may hold halves of a pair of surrogates, which no file does."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]


def execution(folder: Path) -> str:
    """Names this very execution of a trial by the first line of its ledger: another machine's has another clock."""
    try:
        with open_inside(folder, "metrics.jsonl") as ledger:
            first = ledger.readline()
    except OSError:
        return ""
    return hashlib.sha256(first).hexdigest()[:16] if first.endswith(b"\n") else ""


def told_state(record: Record) -> str:
    """The state the trial's run should show, with a digest of what is said at the end; empty: nothing to tell yet."""
    endings = {
        "done": ("FINISHED", "result.json"),
        "failed": ("FAILED", "error.json"),
        "pruned": ("KILLED", "pruned.json"),
    }
    if record.status == "failed" and record.error.get("kind") in ("user", "data") and not execution(record.folder):
        return ""  # a typing mistake is no experiment, and who made it shall not wait for the store
    if record.status in endings:
        state, name = endings[record.status]
        try:
            with open_inside(record.folder, name) as file:
                return f"{state}:{hashlib.sha256(file.read()).hexdigest()[:16]}"
        except OSError:
            return f"{state}:-"  # a link out of the folder: the trial is told without it
    if record.status == "damaged" or not execution(record.folder):
        return ""  # what was told of it before it was damaged stays
    return "RUNNING" if record.status == "running" else "KILLED"


def rewound(folder: Path, mark: Mark) -> bool:
    """Whether the ledger before the mark is no longer what was read (its tail was lost with the power, say)."""
    return mark.offset > 0 and tail_digest(folder, mark.offset) != mark.tail


def tail_digest(folder: Path, offset: int) -> str:
    try:
        with open_inside(folder, "metrics.jsonl") as ledger:
            ledger.seek(max(0, offset - _TAIL))
            tail = ledger.read(min(offset, _TAIL))
    except OSError:
        return ""
    return hashlib.sha256(tail).hexdigest()[:16]


def pending(folder: Path, offset: int, most: int = BATCH) -> Iterator[tuple[list[Line], int]]:
    """Batches of the measurements after byte ``offset``, each with the offset behind it; a torn last line waits."""
    try:
        ledger = open_inside(folder, "metrics.jsonl")
    except OSError:
        return
    with ledger:
        ledger.seek(offset)
        while raw := [line for line in islice(ledger, most) if line.endswith(b"\n")]:
            offset += sum(map(len, raw))
            yield list(parse_lines(b"".join(raw))), offset


def adoption(sweep: str, parent: str) -> str:
    return f"{sweep}:{parent}"


def behind(record: Record, mark: Mark) -> bool:
    """Whether the store lacks anything about the trial."""
    state = told_state(record)
    if not state:
        return False
    if state != mark.told or rewound(record.folder, mark):
        return True
    return next(pending(record.folder, mark.offset), None) is not None


def young(record: Record) -> bool:
    """Whether a trial runs, and has for a moment only."""
    first = first_line(record.folder / LEDGER) if record.status == "running" else None
    return first is not None and 0 <= time.time() * 1000 - first.t < YOUNG_MS


def machines_of(sweep: Path) -> list[Path]:
    """The folders with samples of other machines than the driver's."""
    return sorted(ledger.parent for ledger in (sweep / MACHINES).glob(f"*/{LEDGER}"))


def group_label(options: Mapping[str, object]) -> str:
    """How a group of a sweep is called in metric names.

    >>> group_label({"backbone": "mlp", "epochs": 3})
    'backbone mlp epochs 3'
    """
    return " ".join(f"{axis} {value}" for axis, value in options.items()) or "all"


def aggregates(sweep: Sweep) -> dict[str, float] | None:
    """Mean, interval and n of every metric per group; None as long as a trial may still change them."""
    from engram.backbone.measures.intervals import (
        interval,
    )  # numpy and scipy, which asking whether there is news does not need

    groups: dict[str, list[Record]] = {}
    for record in sweep.records:
        if record.status not in _ENDED:
            return None
        if record.status == "done":
            axes = {axis: record.config.get(axis) for axis in sweep.axes}
            groups.setdefault(group_label(axes), []).append(record)
    values: dict[str, float] = {}
    for label, records in groups.items():
        promised = declared(records[0].experiment)
        for metric in sorted({name for record in records for name in record.metrics}):
            scores = [record.metrics[metric] for record in records if metric in record.metrics]
            found = interval(scores, bounds=bounds_of(promised, metric))
            summary = {"mean": found.mean, "low": found.low, "high": found.high, "n": found.n}
            values.update({f"{label}/{metric}/{key}": value for key, value in summary.items() if value is not None})
    return values


def sweep_state(sweep: Sweep, *, over: bool) -> str:
    """The state that a sweep's run should show, "" where the trials say it; ``over``: nobody is about to go on."""
    states = {record.status for record in sweep.records}
    if states <= _ENDED:
        return ""
    return "KILLED" if over and "running" not in states else "RUNNING"


def told_sweep(sweep: Sweep, state: str) -> str:
    """What a sweep's mark says when the store knows of its trials, and of the state of `sweep_state`."""
    return f"{sweep_digest(sweep)}:{state}".removesuffix(":")


def sweep_digest(sweep: Sweep) -> str:
    """Changes when the sweep's trials or their results do."""
    said: Sequence[object] = [
        TELLING,
        sorted((record.trial, record.status, sorted(record.metrics.items())) for record in sweep.records),
        dict(sweep.axes),
    ]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
