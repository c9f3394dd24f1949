"""Measurements straight into the tables of an MLflow database, row for row what its ``log_batch`` would leave there.

MLflow makes an object of every row and checks it twice, which is most of its time. Here rows go as plain values through
the same engine, with the database's own ``ON CONFLICT``: what is there already stays, and the latest value
of a metric is replaced by a later one alone, compared by step, time and value as MLflow does.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from engram.benchmarks.records.lines import Line
from engram.benchmarks.sink.state import metric_key

if TYPE_CHECKING:
    from mlflow import MlflowClient

ROWS = 20_000
"""Measurements of a transaction: enough that its end costs nothing, few enough to hold."""
_KEYS = 500  # names in a question
_IDENTITY = ("key", "timestamp", "step", "run_uuid", "value", "is_nan")  # the primary key of the table


class Rows:
    """The tables of one database; `of` says whether a client's store is one that this is for."""

    def __init__(self, insert: Any) -> None:
        from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric

        metrics, latest = SqlMetric.__table__, SqlLatestMetric.__table__
        self.insert = insert  # makes statements that know ON CONFLICT
        self._metrics = metrics
        self._add = insert(metrics).on_conflict_do_nothing(index_elements=_IDENTITY)
        self._latest = _latest(insert, latest)

    @classmethod
    def of(cls, client: MlflowClient) -> Rows | None:
        """For a client that speaks to an SQLite file; None for any other."""
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        store = client._tracking_client.store
        if not isinstance(store, SqlAlchemyStore) or store.engine.dialect.name != "sqlite":
            return None
        from sqlalchemy.dialects.sqlite import insert

        return cls(insert)

    def add(self, session: Any, run: str, lines: Sequence[Line], *, once: bool = False) -> None:
        """Add measurements to a run in a transaction that is under way.

        With ``once`` those are left out whose name and step the run has, at whatever time.
        """
        values = [_row(run, line) for line in lines]
        if once and values:
            known = set(self._known(session, run, values))
            values = [row for row in values if (row["key"], row["step"]) not in known]
        if values:
            session.execute(self._add, values)
            session.execute(self._latest, _newest(values))

    def _known(self, session: Any, run: str, values: Sequence[dict[str, Any]]) -> Iterator[tuple[str, int]]:
        """Names and steps that the run has among those of ``values`` and between them."""
        from sqlalchemy import select

        table, steps = self._metrics.c, [row["step"] for row in values]
        for keys in _parts(sorted({row["key"] for row in values})):
            where = (table.run_uuid == run, table.key.in_(keys), table.step.between(min(steps), max(steps)))
            yield from (tuple(row) for row in session.execute(select(table.key, table.step).where(*where)))


def _latest(insert: Any, table: Any) -> Any:
    """The statement that keeps the latest value of each metric."""
    from sqlalchemy import tuple_

    adding = insert(table)
    new, parts = adding.excluded, ("step", "timestamp", "value")
    return adding.on_conflict_do_update(
        index_elements=("key", "run_uuid"),
        set_={name: new[name] for name in ("value", "timestamp", "step", "is_nan")},
        where=tuple_(*(new[name] for name in parts)) > tuple_(*(table.c[name] for name in parts)),
    )


def _row(run: str, line: Line) -> dict[str, Any]:
    """A measurement as MLflow's columns hold it: nan is a flag, and infinity the largest number."""
    nan = math.isnan(line.value)
    value = 0.0 if nan else max(-sys.float_info.max, min(sys.float_info.max, line.value))
    about = {"run_uuid": run, "key": metric_key(line.name), "timestamp": line.t, "step": line.step}
    return {**about, "value": value, "is_nan": nan}


def _newest(values: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The latest row of each metric, in the order of their names, in which all processes lock them."""
    newest: dict[str, dict[str, Any]] = {}
    for row in values:
        held = newest.get(row["key"])
        if held is None or _age(row) > _age(held):
            newest[row["key"]] = row
    return [newest[key] for key in sorted(newest)]


def _age(row: dict[str, Any]) -> tuple[int, int, float]:
    return row["step"], row["timestamp"], row["value"]


def _parts(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    yield from (keys[first : first + _KEYS] for first in range(0, len(keys), _KEYS))
