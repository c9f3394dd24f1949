"""Trials, read from their folders or from a tracking store, and compared."""

from __future__ import annotations

from pathlib import Path

from engram.benchmarks.compare.comparison import Comparison, compare_outcomes
from engram.benchmarks.compare.gathering import check_words, gather, merged
from engram.benchmarks.compare.wanted import ALL, Wanted


def compare(out: Path, *names: str, wanted: Wanted = ALL, tracking_uri: str | None = None) -> Comparison:
    """Compare the groups of some trials.

    Args:
        out: The output folder that holds them; not read when ``tracking_uri`` is given.
        names: Sweeps, by name or folder, and finished trials, by id or folder.
        wanted: How: by which options, on which metric, over which tasks, with which gate.
        tracking_uri: Read the sweeps from this MLflow store, where those of many machines may be.

    Raises:
        UserError: unknown sweep, trial, option, metric or group; a gate or baseline that cannot be read; a store that
            cannot be reached.
    """
    check_words(wanted)
    if tracking_uri is None:
        outcomes = gather(out, names)
    else:
        from engram.benchmarks.sink import read_store

        outcomes = merged([read_store(tracking_uri, name) for name in names])
    return compare_outcomes(outcomes, wanted)
