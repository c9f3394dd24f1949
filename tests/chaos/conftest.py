"""What MLflow was told, read from its database itself."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from engram.benchmarks.records.trials import Record, trial_names

collect_ignore = ["storm"]  # a command, see make chaos

TOLD = """
select t.value, m.key, m.step from metrics m join tags t on t.run_uuid = m.run_uuid
join runs r on r.run_uuid = m.run_uuid where t.key = 'engram.trial' and r.lifecycle_stage = 'active'
"""


@pytest.fixture(scope="session")
def told_once() -> Callable[[Path], int]:
    """Fail unless all that the ledgers and results hold stands in the store exactly once; the ledgers' lines."""

    def check(out: Path) -> int:
        with closing(sqlite3.connect(out / "mlflow.db")) as store:
            found = Counter(store.execute(TOLD))
        records = [Record(out / "trials" / trial) for trial in trial_names(out)]
        logged = {(record.trial, line.name, line.step) for record in records for line in record.ledger()}
        assert set(found) >= logged
        results = {(record.trial, name) for record in records for name in record.metrics}
        names = {(trial, key.removeprefix("final/")) for trial, key, _ in found}
        assert names >= results
        assert [key for key, times in found.items() if times > 1] == []
        return len(logged)

    return check
