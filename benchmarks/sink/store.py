"""Speaks to an MLflow client: runs, batches, endings, sweeps. Every call may be made again and doubles nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from engram.benchmarks.records.layout import sweep_dir
from engram.benchmarks.records.lines import LEDGER, Line, extent_of, first_line, last_line
from engram.benchmarks.records.trials import Record, Sweep
from engram.benchmarks.sink.files import drawn, files_of, send, sweep_texts
from engram.benchmarks.sink.params import clean, params_of, within
from engram.benchmarks.sink.read import runs_where
from engram.benchmarks.sink.rows import ROWS, Rows
from engram.benchmarks.sink.said import TAG_SIZE, final_key, membership, newest, run_name, source_tags, tags_of
from engram.benchmarks.sink.state import (
    ASIDE_TAG,
    BATCH,
    ELSEWHERE_TAG,
    Mark,
    Memory,
    adoption,
    aggregates,
    execution,
    metric_key,
    pending,
    rewound,
    tail_digest,
    told_state,
)
from engram.benchmarks.sink.trouble import refuse

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, Run, RunTag

Entity = TypeVar("Entity", "Metric", "Param", "RunTag")

_ENTITIES = 100  # params or tags a request may carry
_DATASET_SIZE = 500
_TOO_LARGE = 2**63  # for a step
_REQUEST_SIZE, _AROUND = 900_000, 150  # bytes of a request, and what it has around an entity's name and value


class Teller:
    """Tells one store about trials and sweeps of the output folder ``out``.

    New runs are made in ``experiment``; others are looked for in all of ``experiments`` (id -> name).
    """

    def __init__(
        self, client: MlflowClient, experiment: str, experiments: Mapping[str, str], out: Path, home: str
    ) -> None:
        self.client = client
        self.experiment = experiment
        self.experiments = {experiment: "", **experiments}
        self.rows = Rows.of(client)
        self.home = home
        self.out = out

    # --- trials -------------------------------------------------------------------------------------------------------

    def tell_trial(self, record: Record, memory: Memory, mark: Mark, sweep: str, parent: str) -> None:
        """Bring the trial's run up to date, saving the mark after every step that need not be repeated."""
        state = told_state(record)  # before the ledger is read: what is told as finished was complete
        if not state:
            return
        run, found = self._run_of(record, mark)
        if run.info.lifecycle_stage != "active":
            mark.told, mark.aside = state, ""  # its owner deleted it on purpose
            memory.save(mark)
            return
        if found:
            mark.offset = 0
        mark.run = run.info.run_id
        self._adopt(run, record, sweep, parent)
        mark.adopted = sorted({*mark.adopted, adoption(sweep, parent)})
        self._replay(record.folder, run, memory, mark, again=found)
        if state != mark.told:
            self._end(record, run, state)
            for _ in send(self.client, run, files_of(record)[0], mark.files):
                memory.save(mark)
            mark.told = state
        if ASIDE_TAG in run.data.tags:
            self.client.delete_tag(mark.run, ASIDE_TAG)
        mark.aside = ""
        memory.save(mark)

    def _replay(self, folder: Path, run: Run, memory: Memory, mark: Mark, *, again: bool = False) -> None:
        """Tell what the ledger in ``folder`` says behind the mark; ``again``: nothing is known of what was told."""
        if rewound(folder, mark):
            mark.offset, again = 0, True
        known = self._known(run) if again and self.rows is None else set[tuple[str, int]]()
        for lines, offset in pending(folder, mark.offset, BATCH if self.rows is None else ROWS):
            fresh = [line for line in lines if (metric_key(line.name), line.step) not in known]
            self._log(run.info.run_id, fresh, once=again)
            mark.offset, mark.tail = offset, tail_digest(folder, offset)
            memory.save(mark)

    def put_aside(self, memory: Memory, mark: Mark, why: str) -> None:
        """Say of a trial that the store does not take, on what there is of its run, that this is all and why."""
        mark.aside = why
        memory.save(mark)
        if mark.run:
            self.client.set_tag(mark.run, ASIDE_TAG, clean(why)[:TAG_SIZE])
            self.client.set_terminated(mark.run, "KILLED")

    def _run_of(self, record: Record, mark: Mark) -> tuple[Run, bool]:
        """The trial's run, and whether it was found by its tag: then nothing is known of what was told to it."""
        if mark.run:
            try:
                return self.client.get_run(mark.run), False
            except Exception as error:  # its type depends on the kind of store
                if "not found" not in str(error).lower() and "RESOURCE_DOES_NOT_EXIST" not in str(error):
                    raise
        mark.offset, mark.tail, mark.told, mark.files = 0, "", "", {}
        this = execution(record.folder)
        for run in self._search({"engram.trial": record.trial}):
            if run.data.tags.get("engram.execution", "") in (this, ""):
                return run, True
        return self._create(record, this), False

    def _create(self, record: Record, this: str) -> Run:
        ledger = first_line(record.folder / LEDGER)
        start = ledger.t if ledger else int((record.folder / "config.json").stat().st_mtime * 1000)
        tags = {"engram.trial": record.trial, "engram.execution": this, **tags_of(record)}
        return self.client.create_run(self.experiment, start_time=start, run_name=run_name(record), tags=tags)

    def _params(self, run: Run, record: Record) -> None:
        from mlflow.entities import Param

        # params cannot be changed: those that are there stay
        named = {metric_key(name): value for name, value in params_of(record).items()}
        fresh = [Param(name, value) for name, value in named.items() if name not in run.data.params]
        for part in in_requests(fresh, _ENTITIES):
            self.client.log_batch(run.info.run_id, params=part)

    def _known(self, run: Run) -> set[tuple[str, int]]:
        history = self.client.get_metric_history
        return {(key, point.step) for key in run.data.metrics for point in history(run.info.run_id, key)}

    def _log(self, run: str, lines: list[Line], *, once: bool = False) -> None:
        """Add measurements to a run; ``once`` where it may have them at another time (of a server's is known which)."""
        from mlflow.entities import Metric

        for line in lines:
            if not (0 <= line.t < _TOO_LARGE and -_TOO_LARGE <= line.step < _TOO_LARGE):
                got = f"step {line.step} at {line.t} of {line.name}"
                raise refuse("a step in metrics.jsonl", "a number of at most 64 bits", got, "Count otherwise there.")
        if self.rows is not None and (not lines or self.rows.log(run, lines, once=once)):
            return
        metrics = [Metric(metric_key(line.name), line.value, line.t, line.step) for line in lines]
        for part in in_requests(metrics, BATCH):
            self.client.log_batch(run, part)

    def _adopt(self, run: Run, record: Record, sweep: str, parent: str) -> None:
        """A trial shared by several sweeps stays below the first, and says it belongs to all."""
        self._tag(run, {membership(sweep): "yes"} if sweep else {})
        before = run.data.tags.get("mlflow.parentRunId", "")
        if parent and before != parent and not self._is_live(before):
            self._tag(run, {"mlflow.parentRunId": parent})
            if run.info.run_name != run_name(record):  # it was run alone before, with nothing to be told apart by
                self.client.update_run(run.info.run_id, name=run_name(record))

    def _is_live(self, run: str) -> bool:
        if not run:
            return False
        try:
            return self.client.get_run(run).info.lifecycle_stage == "active"
        except Exception:
            return False  # gone for good, or the next call fails the same way and says so

    def _tag(self, run: Run, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        fresh = [RunTag(key, value) for key, value in tags.items() if run.data.tags.get(key) != value]
        for part in in_requests(fresh, _ENTITIES):
            self.client.log_batch(run.info.run_id, tags=part)

    def _end(self, record: Record, run: Run, state: str) -> None:
        """Final numbers, figures, tables and the state. Resumed trials come here again, with more to say."""
        status, run_id = state.partition(":")[0], run.info.run_id
        self._tag(run, {"engram.execution": execution(record.folder), **tags_of(record)})
        self._params(run, record)
        self._dataset(run, record)
        if status == "RUNNING":
            self.client.update_run(run_id, status="RUNNING")
            return
        ledger = extent_of(record.folder / LEDGER)
        end = ledger.last.t if ledger else int(newest(record.folder) * 1000)
        if status == "FINISHED":
            told, history = self.client.get_run(run_id).data.metrics, ledger.names if ledger else frozenset[str]()
            step = ledger.step if ledger else 0
            final = [Line(end, step, final_key(name, history), value) for name, value in record.metrics.items()]
            self._log(run_id, [line for line in final if metric_key(line.name) not in told])
            for place, text in drawn(record).items():
                self.client.log_text(run_id, text, place)
        self.client.set_terminated(run_id, status, end_time=end)

    def _dataset(self, run: Run, record: Record) -> None:
        digest = record.provenance.get("facts.data_sha256")
        if not digest or (run.inputs is not None and run.inputs.dataset_inputs):
            return
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.entities import DatasetInput

        name = within(clean(str(record.config.get("dataset") or "data")), _DATASET_SIZE)
        source = CodeDatasetSource(tags={"dataset": name, "sha256": str(digest)})
        # the column for the digest holds 36 characters
        dataset = MetaDataset(source, name=name, digest=str(digest)[:32])
        self.client.log_inputs(run.info.run_id, [DatasetInput(dataset._to_mlflow_entity(), tags=[])])

    # --- sweeps -------------------------------------------------------------------------------------------------------

    def runs_of(self, sweep: Sweep, known: str) -> list[Run]:
        """The runs that the sweep has; ``known`` is the id of one."""
        mine = self._search({"engram.sweep": sweep.name, "engram.home": self.home})
        return mine + [
            run for run in self._runs_by_id(known) if run.info.run_id not in {one.info.run_id for one in mine}
        ]

    def tell_sweep(self, sweep: Sweep, mine: Sequence[Run], digest: str, state: str) -> str:
        """The id of the sweep's run, one of ``mine``, with the table of its groups once every trial is over, else in
        the state that is given.

        MLflow cannot take a number back. When the table changes (another seed was added), a new run replaces the old
        one, so that every key has one value.
        """
        values = aggregates(sweep)
        stamp = digest if values is not None else ""
        keep = next((run for run in mine if run.data.tags.get("engram.table", "") in (stamp, "")), None)
        if keep is None:
            keep = self._create_parent(sweep)
        axes = json.dumps(dict(sweep.axes))
        if len(axes) > TAG_SIZE:  # compare reads it back, the names alone
            axes = json.dumps({axis: [] for axis in sweep.axes})
        self._tag(keep, {"engram.axes": axes})
        if values is not None:
            self._tag(keep, {"engram.table": digest})  # first: a half-told table must not be taken for another one's
            self._tell_table(keep, sweep, values)
        elif keep.info.status != state:
            self.client.update_run(keep.info.run_id, status=state)
        for run in mine:
            if run.info.run_id != keep.info.run_id:
                self.client.delete_run(run.info.run_id)
        return keep.info.run_id

    def _create_parent(self, sweep: Sweep) -> Run:
        tags = {
            "engram.sweep": sweep.name,
            "engram.home": self.home,
            "mlflow.note.content": clean(sweep.suite)[:TAG_SIZE],
        }
        starts = [line.t for record in sweep.records if (line := first_line(record.folder / LEDGER))]
        start = min(starts) if starts else int((sweep_dir(self.out, sweep.name) / "plan.json").stat().st_mtime * 1000)
        return self.client.create_run(
            self.experiment, start_time=start, run_name=sweep.name, tags={**tags, **source_tags()}
        )

    def _tell_table(self, parent: Run, sweep: Sweep, values: Mapping[str, float]) -> None:
        ends = [line.t for record in sweep.records if (line := last_line(record.folder / LEDGER))]
        end = max(ends) if ends else parent.info.start_time
        self._log(parent.info.run_id, [Line(end, 0, name, value) for name, value in values.items()])
        failed = any(record.status == "failed" for record in sweep.records)
        for place, text in sweep_texts(sweep, self.out).items():
            self.client.log_text(parent.info.run_id, text, place)
        self.client.set_terminated(parent.info.run_id, "FAILED" if failed else "FINISHED", end_time=end)

    def say_elsewhere(self, sweep: Sweep, parent: str) -> None:
        """Let the sweep's run say how many of its trials live in other experiments, which told them first."""
        found = Counter(
            self.experiments[run.info.experiment_id] for run in self._search({membership(sweep.name): "yes"})
        )
        found.pop(self.experiments[self.experiment], None)
        run = self.client.get_run(parent)
        if found:
            said = ", ".join(f"{name} ({count})" for name, count in sorted(found.items()))
            self._tag(run, {ELSEWHERE_TAG: said[:TAG_SIZE]})
        elif ELSEWHERE_TAG in run.data.tags:
            self.client.delete_tag(parent, ELSEWHERE_TAG)

    def tell_machine(self, folder: Path, memory: Memory, mark: Mark) -> None:
        """Tell a sweep's run how busy a machine was; ``folder`` is where its samples are."""
        if rewound(folder, mark) or next(pending(folder, mark.offset), None) is not None:
            self._replay(folder, self.client.get_run(mark.run), memory, mark, again=mark.offset == 0)

    def left(self, sweep: Sweep, here: set[str]) -> list[Run]:
        """Our runs that the store counts to a sweep whose plan names them no more: those an edited suite left behind.

        ``here`` are the trials that have a folder.
        """
        members = {record.trial for record in sweep.records}
        found = self._search({membership(sweep.name): "yes"})
        return [run for run in found if run.data.tags.get("engram.trial") not in members and self._is_ours(run, here)]

    def _is_ours(self, run: Run, here: set[str]) -> bool:
        """Whether this output folder made a run, and not another machine that tells the same store."""
        trial = run.data.tags.get("engram.trial", "")
        if trial in here:
            return execution(self.out / "trials" / trial) == run.data.tags.get("engram.execution")
        try:
            parent = self.client.get_run(run.data.tags["mlflow.parentRunId"])
        except Exception:  # it has none, or it was deleted for good
            return False
        return parent.data.tags.get("engram.home") == self.home

    def release(self, run: Run, sweep: str, parent: str, others: Iterable[str]) -> None:
        """Take a run out of a sweep, from below its run ``parent`` to below one of the ``others``, if one is there."""
        above = run.data.tags.get("mlflow.parentRunId", "")
        if above and (above == parent or not self._is_live(above)):
            heir = next(filter(self._is_live, others), None)
            if heir is None:
                self.client.delete_tag(run.info.run_id, "mlflow.parentRunId")
            else:
                self._tag(run, {"mlflow.parentRunId": heir})
        self.client.delete_tag(run.info.run_id, membership(sweep))

    def _runs_by_id(self, run: str) -> list[Run]:
        if not run:
            return []
        try:
            found = self.client.get_run(run)
        except Exception:
            return []  # it was deleted for good: another one takes its place
        return [found] if found.info.lifecycle_stage == "active" else []

    def _search(self, tags: Mapping[str, str]) -> list[Run]:
        text = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        return list(runs_where(self.client, list(self.experiments), text))


def in_requests(entities: Sequence[Entity], most: int) -> Iterator[list[Entity]]:
    """Metrics, params or tags in as many requests as MLflow asks for, by their number and by their bytes."""
    part: list[Entity] = []
    size = 0
    for entity in entities:
        needed = _AROUND + len(json.dumps([entity.key, str(entity.value)]))
        if part and (len(part) == most or size + needed > _REQUEST_SIZE):
            yield part
            part, size = [], 0
        part.append(entity)
        size += needed
    if part:
        yield part
