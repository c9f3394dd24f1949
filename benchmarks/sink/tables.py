"""Runs straight in the tables of an MLflow database, row for row what MLflow's client leaves there.

A client's call is a session with some dozen statements, most of which read anew what the caller has just written, and a
trial takes ten calls. Here all that a trial has to tell is one transaction of plain values.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engram.benchmarks.records.lines import Line
from engram.benchmarks.sink.rows import ROWS, Rows
from engram.benchmarks.sink.runs import NAME_TAG, Beginning, Known, News, told
from engram.benchmarks.sink.state import metric_key
from engram.benchmarks.sink.trouble import refuse

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

_INFO = ("run_uuid", "experiment_id", "name", "status", "lifecycle_stage", "artifact_uri")


class TableRuns:
    """Those of a database that knows ``ON CONFLICT``; `of` says whether a client's store is one."""

    batch = ROWS
    at_once = 1  # a database has one writer

    def __init__(self, store: SqlAlchemyStore, rows: Rows) -> None:
        from mlflow.store.tracking.dbmodels import models

        self.rows = rows
        self._session = store.ManagedSessionMaker
        self._runs, self._tags, self._params = (
            table.__table__ for table in (models.SqlRun, models.SqlTag, models.SqlParam)
        )
        self._datasets, self._inputs = models.SqlDataset.__table__, models.SqlInput.__table__
        self._latest, self._experiments = models.SqlLatestMetric.__table__, models.SqlExperiment.__table__

    @classmethod
    def of(cls, client: MlflowClient) -> TableRuns | None:
        """For a client that speaks to such a database; None for any other and for servers."""
        rows = Rows.of(client)
        return None if rows is None else cls(client._tracking_client.store, rows)

    def known(self, runs: Sequence[str]) -> dict[str, Known]:
        with self._session() as session:
            return {run.run: run for run in self._read(session, self._runs.c.run_uuid.in_(runs))} if runs else {}

    def found(self, experiments: Sequence[str], trials: Sequence[str]) -> dict[str, list[Known]]:
        from sqlalchemy import select

        found: dict[str, list[Known]] = {trial: [] for trial in trials}
        if not found:
            return found
        tags, runs = self._tags.c, self._runs.c
        theirs = select(tags.run_uuid).where(tags.key == "engram.trial", tags.value.in_(trials))
        where = runs.run_uuid.in_(theirs) & runs.experiment_id.in_([int(each) for each in experiments])
        with self._session() as session:
            for run in self._read(session, where & (runs.lifecycle_stage == "active")):
                found[run.tags["engram.trial"]].append(run)
        return found

    def _read(self, session: Any, where: Any) -> Iterator[Known]:
        """The runs of a condition, newest first."""
        from sqlalchemy import select

        runs, tags = self._runs.c, self._tags.c
        columns = [runs[name] for name in _INFO]
        rows = session.execute(select(*columns).where(where).order_by(runs.start_time.desc(), runs.run_uuid)).all()
        held: dict[str, dict[str, str]] = {row[0]: {} for row in rows}
        for run, key, value in session.execute(
            select(tags.run_uuid, tags.key, tags.value).where(tags.run_uuid.in_(list(held)))
        ):
            held[run][key] = value
        for run, experiment, name, status, stage, files in rows:
            yield Known(run, str(experiment), name or "", status, stage == "active", files or "", held[run])

    def tell(self, run: Known | Beginning, news: News) -> Known:
        tags = {**news.tags, NAME_TAG: news.name or run.name}
        with self._session(read_only=False) as session:
            if isinstance(run, Beginning):
                run = self._begin(session, run, tags.get("mlflow.user", "unknown"))
            else:
                self._see_active(session, run.run)
            self._tag(session, run, tags, news.untag)
            if news.params:
                params = [{"run_uuid": run.run, "key": key, "value": value} for key, value in news.params.items()]
                session.execute(self.rows.insert(self._params).on_conflict_do_nothing(), params)
            if news.dataset is not None:
                self._dataset(session, run, news.dataset)
            self.rows.add(session, run.run, [*news.lines, *self._lacking(session, run.run, news)], once=news.once)
            self._update(session, run, news)
        return told(run, replace(news, tags=tags))

    def _begin(self, session: Any, new: Beginning, user: str) -> Known:
        from mlflow.utils.uri import append_to_uri_path

        run = uuid.uuid4().hex
        files = append_to_uri_path(self._place(session, new.experiment), run, "artifacts")
        values = {"run_uuid": run, "name": new.name, "status": "RUNNING", "start_time": new.start, "user_id": user}
        values |= {"source_type": "UNKNOWN", "source_name": "", "entry_point_name": "", "source_version": ""}
        values |= {"lifecycle_stage": "active", "artifact_uri": files, "experiment_id": int(new.experiment)}
        session.execute(self._runs.insert(), [values])
        return Known(run, new.experiment, new.name, "RUNNING", True, files, {})

    def _place(self, session: Any, experiment: str) -> str:
        """Where an experiment has its files.

        Raises:
            Refused: it was deleted.
        """
        from sqlalchemy import select

        table = self._experiments.c
        columns = select(table.lifecycle_stage, table.artifact_location)
        stage, place = session.execute(columns.where(table.experiment_id == int(experiment))).one()
        if stage != "active":
            raise refuse("the experiment of a run", "in the store", "one that was deleted in MLflow", "Restore it.")
        return place

    def _see_active(self, session: Any, run: str) -> None:
        from sqlalchemy import select

        state = select(self._runs.c.lifecycle_stage).where(self._runs.c.run_uuid == run)
        if session.execute(state).scalar() != "active":
            raise refuse("a run", "in the store", "one that was deleted in MLflow just now", "Restore it.")

    def _tag(self, session: Any, run: Known, tags: Mapping[str, str], untag: str) -> None:
        from sqlalchemy import delete

        fresh = {key: value for key, value in tags.items() if run.tags.get(key) != value}
        if fresh:
            adding = self.rows.insert(self._tags)
            kept = {"value": adding.excluded["value"]}
            adding = adding.on_conflict_do_update(index_elements=("key", "run_uuid"), set_=kept)
            session.execute(adding, [{"run_uuid": run.run, "key": key, "value": fresh[key]} for key in sorted(fresh)])
        if untag:
            table = self._tags.c
            session.execute(delete(self._tags).where(table.run_uuid == run.run, table.key == untag))

    def _dataset(self, session: Any, run: Known, given: DatasetInput) -> None:
        """Name the data set as the run's input, where it has none; others of its experiment may have the same."""
        from sqlalchemy import select

        inputs, table, about = self._inputs.c, self._datasets.c, given.dataset
        mine = {"source_type": "DATASET", "destination_type": "RUN", "destination_id": run.run}
        where = [inputs[name] == value for name, value in mine.items()]
        if session.execute(select(inputs.source_id).where(*where)).first() is not None:
            return
        key = {"experiment_id": int(run.experiment), "name": about.name, "digest": about.digest}
        said = {"dataset_source_type": about.source_type, "dataset_source": about.source}
        said |= {"dataset_schema": about.schema, "dataset_profile": about.profile, "dataset_uuid": uuid.uuid4().hex}
        session.execute(self.rows.insert(self._datasets).on_conflict_do_nothing(), [{**key, **said}])
        where = [table[name] == value for name, value in key.items()]
        source = session.execute(select(table.dataset_uuid).where(*where)).scalar_one()
        session.execute(self._inputs.insert(), [{"input_uuid": uuid.uuid4().hex, "source_id": source, **mine}])

    def _lacking(self, session: Any, run: str, news: News) -> list[Line]:
        """The final numbers whose names the run has no measurement of."""
        from sqlalchemy import select

        if not news.final:
            return []
        table = self._latest.c
        held = {key for (key,) in session.execute(select(table.key).where(table.run_uuid == run))}
        held |= {metric_key(line.name) for line in news.lines}
        return [line for line in news.final if metric_key(line.name) not in held]

    def _update(self, session: Any, run: Known, news: News) -> None:
        from sqlalchemy import update

        values: Mapping[str, object] = {"name": news.name, "status": news.status, "end_time": news.end}
        was: Mapping[str, object] = {"name": run.name, "status": run.status, "end_time": None}
        fresh = {key: value for key, value in values.items() if value not in ("", None, was[key])}
        if fresh:
            session.execute(update(self._runs).where(self._runs.c.run_uuid == run.run).values(**fresh))
