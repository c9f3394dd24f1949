"""MLflow's server on PostgreSQL, started once for all tests; what each tells has names of its own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _servers() -> ModuleType:
    """``servers.py`` beside this file, which is no package."""
    spec = importlib.util.spec_from_file_location("engram_test_servers", Path(__file__).with_name("servers.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    servers = _servers()
    if why := servers.missing():
        pytest.skip(why)
    with servers.Postgres(tmp_path_factory.mktemp("servers") / "postgres") as database:
        yield database


@pytest.fixture(scope="session")
def tracking(database):
    servers = _servers()
    with servers.Tracking(database.folder.parent / "mlflow", database.uri, processes=1) as tracking:
        yield tracking


class Told:
    """What stands in the database, by SQL: neither the sink nor MLflow is asked."""

    def __init__(self, database):
        self.database = database

    def rows(self, query, *values):
        return self.database.rows(query, *values)

    def runs(self, trials):
        """(run, status) of each trial."""
        query = """select t.value, r.run_uuid, r.status from runs r join tags t on t.run_uuid = r.run_uuid
                   where t.key = 'engram.trial' and r.lifecycle_stage = 'active' and t.value = any(%s)"""
        found = self.rows(query, list(trials))
        assert len({trial for trial, _, _ in found}) == len(found)  # no trial has two
        return {trial: (run, status) for trial, run, status in found}

    def count(self, trials):
        """How many measurements the trials have."""
        query = """select count(*) from metrics m join tags t on t.run_uuid = m.run_uuid
                   where t.key = 'engram.trial' and t.value = any(%s)"""
        return self.rows(query, list(trials))[0][0]

    def assert_complete(self, records):
        """All that ledgers and results hold stands there exactly once, and every run has ended as its trial did."""
        runs = self.runs(record.trial for record in records)
        ended = {"done": "FINISHED", "failed": "FAILED", "unfinished": "KILLED"}
        for record in records:
            run, status = runs[record.trial]
            assert status == ended[record.status]
            found = self.rows("select key, step, value, timestamp from metrics where run_uuid = %s", run)
            assert len({(key, step) for key, step, *_ in found}) == len(found)
            logged = {(line.name, line.step, line.value, line.t) for line in record.ledger()}
            assert logged <= set(found)
            names = {line.name for line in record.ledger()}
            finals = {f"final/{name}" if name in names else name for name in record.metrics}
            assert {key for key, *_ in set(found) - logged} == finals

    def assert_nothing_runs(self):
        assert self.rows("select name from runs where status = 'RUNNING' and lifecycle_stage = 'active'") == []


@pytest.fixture(scope="session")
def told(database):
    return Told(database)
