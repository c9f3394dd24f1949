"""What is said about a trial in its run: its name and its tags."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Set
from hashlib import sha256
from pathlib import Path

from engram.backbone.contract import Scalar
from engram.benchmarks.planning.naming import record_words
from engram.benchmarks.records.trials import Record
from engram.benchmarks.sink.files import NAMES, files_of
from engram.benchmarks.sink.params import clean
from engram.benchmarks.sink.state import CONFIG_TAG, metric_key

TAG_SIZE = 8000
_NAME_SIZE = 250


def membership(sweep: str) -> str:
    """The tag of a trial's run that belongs to a sweep."""
    return f"engram.in.{metric_key(sweep)}"


def final_key(name: str, history: Set[str]) -> str:
    """A final number goes by its own name, unless the ledger has a curve of that name: then below ``final/``."""
    return f"final/{name}" if name in history else name


def run_name(record: Record) -> str:
    """A name for people: what tells the trial from others, and the beginning of its id.

    >>> run_name(Record(Path("trials/0123456789abcdef")))
    '? 01234567'
    """
    text = clean(" ".join(record_words(record)))
    return f"{text if len(text) < _NAME_SIZE - 10 else text[: _NAME_SIZE - 13] + '...'} {record.trial[:8]}"


def tags_of(record: Record) -> dict[str, str]:
    """Where the trial came from; whatever its provenance knows goes by the names a reader looks for."""
    facts = record.provenance
    tags = {
        "engram.experiment": record.experiment,
        "engram.version": str(record.about.get("version", "")),
        "git.commit": facts.get("git.commit"),
        "git.dirty": facts.get("git.dirty"),
        "mlflow.source.git.commit": facts.get("git.commit"),
        "data.sha256": facts.get("facts.data_sha256"),
        "env.sha256": environment_digest(facts),
        "engram.error": record.error.get("message") if record.status == "failed" else None,
        "engram.seconds": record.seconds,
        "engram.left_out": ", ".join(f"{name} ({why})" for name, why in files_of(record)[1].items()),
    }
    tags |= config_tags(record.config)
    return source_tags() | {key: clean(str(value))[:TAG_SIZE] for key, value in tags.items() if value not in (None, "")}


def config_tags(config: Mapping[str, Scalar]) -> dict[str, str]:
    """The options in full, in as many tags as they need: compare reads them back."""
    text = json.dumps(config)
    parts = [text[first : first + TAG_SIZE] for first in range(0, len(text), TAG_SIZE)]
    return {f"{CONFIG_TAG}.{number}" if number else CONFIG_TAG: part for number, part in enumerate(parts)}


def environment_digest(facts: Mapping[str, Scalar]) -> str | None:
    """One word for packages, Python and machine: equal for runs that were made under the same ones."""
    alone = ("python", "platform", "processor")
    kept = sorted((name, str(value)) for name, value in facts.items() if name in alone or name.startswith("packages."))
    return sha256(json.dumps(kept).encode()).hexdigest() if kept else None


def source_tags() -> dict[str, str]:
    user = os.environ.get("USER") or os.environ.get("LOGNAME") or ""
    return {"mlflow.source.name": "engram", "mlflow.source.type": "LOCAL"} | ({"mlflow.user": user} if user else {})


def newest(folder: Path) -> float:
    """When the trial was last heard of, unix seconds."""
    return max(path.stat().st_mtime for name in NAMES if (path := folder / name).exists())
