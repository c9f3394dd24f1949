"""A sweep's trials, read from their folders or from a tracking store, and compared."""

from __future__ import annotations

from pathlib import Path

from engram.benchmarks.compare.gate import parse
from engram.benchmarks.compare.groups import Comparison, compare_outcomes
from engram.benchmarks.records.outcomes import from_folders


def compare(
    out: Path,
    sweep: str,
    by: str | None = None,
    metric: str | None = None,
    fail_if: str | None = None,
    tracking_uri: str | None = None,
) -> Comparison:
    """Compare the groups of a sweep.

    Args:
        out: The output folder that holds the sweep; not read when ``tracking_uri`` is given.
        sweep: Its name.
        by: The option, or several with commas, whose values make the groups; by default what the sweep varies.
        metric: What to compare; by default the experiment's primary metric.
        fail_if: A gate, see `engram.benchmarks.compare.gate`.
        tracking_uri: Read the trials from this MLflow store, where those of many machines may be.

    Raises:
        UserError: unknown sweep, option, metric or group; a gate that cannot be read; a store that cannot be reached.
    """
    condition = None if fail_if is None else parse(fail_if)
    if tracking_uri is None:
        outcomes = from_folders(out, sweep)
    else:
        from engram.benchmarks.sink import read_store

        outcomes = read_store(tracking_uri, sweep)
    return compare_outcomes(outcomes, by, metric, condition)
