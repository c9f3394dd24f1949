"""``engram logs TRIAL``: what a trial printed, as it prints it, and the traceback of one that failed."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import BinaryIO

from engram.benchmarks.commands.flags import Following
from engram.benchmarks.given import Given
from engram.benchmarks.records.inside import open_inside
from engram.benchmarks.records.layout import LOG
from engram.benchmarks.records.trials import Record, alive, named_trial
from engram.benchmarks.saying import say

POLL_SECONDS = 0.2


def show(given: Given[Following]) -> int:
    """Print the log of a trial on standard output, and why it failed on standard error."""
    folder = named_trial(given.flags.out, given.words[0], "TRIAL")
    if given.flags.json:
        print(json.dumps(_said(folder)))
        return 0
    with _log(folder) as log:
        while True:
            over = not (given.flags.follow and alive(folder))  # asked before the log is read to its end
            _copy(log)
            if over:
                break
            time.sleep(POLL_SECONDS)
        printed = log.tell()
    record = Record(folder)
    if not printed:
        say(f"trial {record.trial} has printed nothing; it is {record.status}")
    if record.status == "failed":
        trace = str(record.error.get("traceback", "")).rstrip()
        if trace and trace.encode() not in (folder / LOG).read_bytes():
            say(trace)
        for line in record.why.splitlines():
            say(f"engram: trial {record.trial} failed: {line}")
    return 0


def _log(folder: Path) -> BinaryIO:
    try:
        return open_inside(folder, LOG)
    except FileNotFoundError:
        return Path(os.devnull).open("rb")


def _copy(log: BinaryIO) -> None:
    while part := log.read(2**16):
        sys.stdout.write(part.decode(errors="replace"))
    sys.stdout.flush()


def _said(folder: Path) -> dict[str, object]:
    record = Record(folder)
    with _log(folder) as log:
        text = log.read().decode(errors="replace")
    return {
        "trial": record.trial,
        "status": record.status,
        "log": text,
        "message": record.why,
        "traceback": record.error.get("traceback", ""),
    }
