"""A real, empty MLflow database and what stands in it."""

from __future__ import annotations

import sqlite3

import pytest


@pytest.fixture
def store(put_store, folders):
    """The database of ``folders.out``."""
    return put_store(folders.out)


@pytest.fixture
def by_client(monkeypatch):
    """Tell as a server is told, by MLflow's client alone, for as long as the test needs that."""
    from engram.benchmarks.sink.tables import TableRuns

    monkeypatch.setattr(TableRuns, "of", lambda client: None)


class Told:
    """What stands in an MLflow database, by raw SQL: the sink is not asked."""

    def rows(self, store, query, *values):
        with sqlite3.connect(store) as connection:
            found = connection.execute(query, values).fetchall()
        connection.close()
        return found

    def assert_once(self, store):
        """Every (run, key, step) stands exactly once, and no trial has two runs."""
        counts = self.rows(
            store, "select run_uuid, key, step, count(*) from metrics group by 1, 2, 3 having count(*) > 1"
        )
        assert counts == []
        live = "select run_uuid from runs where lifecycle_stage = 'active'"
        query = f"select value, count(*) from tags where key = 'engram.trial' and run_uuid in ({live}) group by 1"
        assert all(count == 1 for _, count in self.rows(store, query))

    def points(self, store, trial, name):
        query = """select m.step, m.timestamp, m.value from metrics m join tags t on m.run_uuid = t.run_uuid
                   where t.key = 'engram.trial' and t.value = ? and m.key = ? order by m.step"""
        return self.rows(store, query, trial, name)

    def status(self, store, trial):
        query = """select r.status, r.start_time, r.end_time from runs r join tags t on r.run_uuid = t.run_uuid
                   where t.key = 'engram.trial' and t.value = ?"""
        (found,) = self.rows(store, query, trial)
        return found

    def tags(self, store, trial):
        query = "select run_uuid from tags where key = 'engram.trial' and value = ?"
        ((run,),) = self.rows(store, query, trial)
        return dict(self.rows(store, "select key, value from tags where run_uuid = ?", run))


@pytest.fixture(scope="session")
def told():
    return Told()
