"""A real, empty MLflow database and what stands in it."""

from __future__ import annotations

import shutil
import sqlite3

import pytest

from engram.benchmarks.sink import Sink


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """A fresh database as mlflow makes it, which takes seconds: made once, copied for every test."""
    out = tmp_path_factory.mktemp("store")
    assert Sink(out, None).sync([], None).ok
    return out / "mlflow.db"


@pytest.fixture
def store(empty_store, folders):
    """The database of ``folders.out``."""
    folders.out.mkdir(parents=True, exist_ok=True)
    path = folders.out / "mlflow.db"
    shutil.copy(empty_store, path)
    with sqlite3.connect(path) as connection:  # as if it had been made here
        place = (folders.out / "mlartifacts").as_uri()
        connection.execute("update experiments set artifact_location = ? where name = 'engram'", (place,))
    connection.close()
    return path


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
