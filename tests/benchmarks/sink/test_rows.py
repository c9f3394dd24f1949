"""Rows written straight into an MLflow database, held against its own log_batch table by table."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engram.benchmarks.records.lines import Line
from engram.benchmarks.sink.rows import ROWS
from engram.benchmarks.sink.runs import News
from engram.benchmarks.sink.sync import connect
from engram.benchmarks.sink.tables import TableRuns

TABLES = {
    "metrics": "select key, value, timestamp, step, is_nan from metrics where run_uuid = ? order by 1, 4, 3, 2, 5",
    "latest_metrics": "select key, value, timestamp, step, is_nan from latest_metrics where run_uuid = ? order by 1",
}
LINES = st.builds(
    Line,
    t=st.integers(0, 3),
    step=st.integers(-1, 2),
    name=st.sampled_from(["loss", "test/accuracy"]),
    value=st.sampled_from([0.0, -0.0, 1.0, -2.5, 5e-324, math.inf, -math.inf, math.nan]),
)


@pytest.fixture
def client(store):
    return connect(f"sqlite:///{store}")


def tell(client, run, lines, *, once=False):
    runs = TableRuns.of(client)
    runs.tell(runs.known([run])[run], News(lines=lines, once=once))


def both(client, told, store, parts):
    """The tables of a run that we told and of one that log_batch was told, part after part."""
    from mlflow.entities import Metric

    ours, theirs = (client.create_run("1").info.run_id for _ in range(2))
    for part in parts:
        tell(client, ours, part)
        for first in range(0, len(part), 1000):
            metrics = [Metric(line.name, line.value, line.t, line.step) for line in part[first : first + 1000]]
            client.log_batch(theirs, metrics)
    return [{name: told.rows(store, query, run) for name, query in TABLES.items()} for run in (ours, theirs)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.lists(LINES, min_size=1, max_size=12), max_size=3))
def test_every_table_is_what_log_batch_leaves(client, told, store, parts):
    ours, theirs = both(client, told, store, parts)
    assert ours == theirs


def test_many_names_and_rows(client, told, store):
    rng = random.Random(0)
    lines = [Line(rng.randrange(9), rng.randrange(40), f"m{rng.randrange(700)}", rng.random()) for _ in range(3000)]
    ours, theirs = both(client, told, store, [lines[:1500], lines[1000:]])
    assert ours == theirs
    assert len(ours["metrics"]) == 3000


def test_what_the_run_has_at_another_time_is_left_out(client, told, store):
    run = client.create_run("1").info.run_id
    tell(client, run, [Line(1, step, "loss", 0.5) for step in range(4)])
    tell(client, run, [Line(9, step, "loss", 0.6) for step in range(2, 6)], once=True)
    found = told.rows(store, TABLES["metrics"], run)
    assert [(step, time) for _, _, time, step, _ in found] == [(0, 1), (1, 1), (2, 1), (3, 1), (4, 9), (5, 9)]
    tell(client, run, [Line(9, 3, "loss", 0.6)], once=True)
    assert told.rows(store, TABLES["metrics"], run) == found


def test_a_run_that_was_deleted_takes_nothing(client, told, store):
    run = client.create_run("1").info.run_id
    client.delete_run(run)
    with pytest.raises(Exception, match="must be in the store; got one that was deleted in MLflow just now"):
        tell(client, run, [Line(1, 1, "loss", 0.5)])
    assert told.rows(store, TABLES["metrics"], run) == []


def test_a_transaction_is_all_or_nothing(client, told, store):
    from mlflow.exceptions import MlflowException

    run = client.create_run("1").info.run_id
    huge = Line(1, 2**63, "loss", 0.5)
    with pytest.raises(MlflowException, match="too large"):
        tell(client, run, [Line(1, 1, "loss", 0.5), huge])
    assert told.rows(store, TABLES["metrics"], run) == []


def test_a_server_is_asked_by_log_batch():
    from mlflow import MlflowClient

    assert TableRuns.of(MlflowClient(tracking_uri="http://127.0.0.1:1")) is None
    assert ROWS > 1000
