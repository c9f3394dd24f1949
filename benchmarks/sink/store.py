"""Speaks to a tracking store: of trials and sweeps. Every call may be made again and doubles nothing."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engram.benchmarks.records.layout import sweep_dir
from engram.benchmarks.records.lines import LEDGER, Line, extent_of, first_line, last_line
from engram.benchmarks.records.trials import Record, Sweep
from engram.benchmarks.sink.files import drawn, files_of, put, send, sweep_texts
from engram.benchmarks.sink.params import clean, params_of, within
from engram.benchmarks.sink.read import runs_where
from engram.benchmarks.sink.runs import Beginning, ClientRuns, Known, News, Runs, known_of
from engram.benchmarks.sink.said import TAG_SIZE, final_key, membership, newest, run_name, source_tags, tags_of
from engram.benchmarks.sink.state import (
    ASIDE_TAG,
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
from engram.benchmarks.sink.tables import TableRuns
from engram.benchmarks.sink.trouble import refuse

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

_DATASET_SIZE = 500
_TOO_LARGE = 2**63  # for a step
_PARENT = "mlflow.parentRunId"


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
        self.runs: Runs = TableRuns.of(client) or ClientRuns(client)
        self.home = home
        self.out = out
        self._known: dict[str, Known] = {}  # runs and, of trials without one that is known, what was found by their tag
        self._found: dict[str, list[Known]] = {}

    # --- trials -------------------------------------------------------------------------------------------------------

    def look(self, trials: Sequence[tuple[Record, Mark]]) -> None:
        """Ask the store what it has of trials that are told next."""
        self._known = self.runs.known([mark.run for _, mark in trials if mark.run])
        new = [record.trial for record, mark in trials if mark.run not in self._known]
        self._found = self.runs.found(list(self.experiments), new)

    def _look_at(self, record: Record, mark: Mark) -> None:
        """As `look` at one trial; what is known of others stays."""
        self._known |= self.runs.known([mark.run] if mark.run else [])
        if mark.run not in self._known:
            self._found |= self.runs.found(list(self.experiments), [record.trial])

    def tell_trial(self, record: Record, memory: Memory, mark: Mark, sweep: str, parent: str) -> None:
        """Bring the run of a trial that was looked at up to date, saving the mark after what need not be repeated."""
        state = told_state(record)  # before the ledger is read: what is told as finished was complete
        if not state:
            return
        run, found = self._run_of(record, mark)
        if isinstance(run, Known) and not run.active:
            mark.told, mark.aside = state, ""  # its owner deleted it on purpose
            memory.save(mark)
            return
        news = self._news(record, run, sweep, parent, whole=state != mark.told)
        news.once = self._begin_anew(record.folder, mark) or found
        at = mark.offset, mark.tail
        for lines, behind in self._pieces(record.folder, mark):
            if news.lines:  # the last piece goes with all that is to be said beside
                run = self._tell(run, news, mark, at)
                memory.save(mark)
                news = News(once=news.once)
            news.lines, at = lines, behind
        if state != mark.told:
            self._end(record, news, state)
        run = self._tell(run, news, mark, at)
        mark.adopted = sorted({*mark.adopted, adoption(sweep, parent)})
        if state != mark.told:
            self._hand_over(record, run, memory, mark)
        mark.told, mark.aside = state, ""
        memory.save(mark)

    def put_aside(self, record: Record, memory: Memory, mark: Mark, sweep: str, parent: str, why: str) -> None:
        """Say of a trial that the store does not take, on what there is of its run, that this is all and why."""
        mark.aside = why
        memory.save(mark)
        self._look_at(record, mark)  # the run may have been made, and the answer lost
        run, _ = self._run_of(record, mark)
        news = self._news(record, run, sweep, parent, whole=True)
        news.tags[ASIDE_TAG], news.untag = clean(why)[:TAG_SIZE], ""
        news.status, news.end = "KILLED", int(time.time() * 1000)
        self._tell(run, news, mark, (mark.offset, mark.tail))
        memory.save(mark)

    def _tell(self, run: Known | Beginning, news: News, mark: Mark, at: tuple[int, str]) -> Known:
        """Tell a run; the mark then says that its ledger was told up to ``at``."""
        run = self.runs.tell(run, news)
        self._known[run.run] = run
        mark.run, (mark.offset, mark.tail) = run.run, at
        return run

    def _begin_anew(self, folder: Path, mark: Mark) -> bool:
        """Whether the ledger is another one than was told: then nothing is known of what was."""
        anew = rewound(folder, mark)
        if anew:
            mark.offset, mark.tail = 0, ""
        return anew

    def _pieces(self, folder: Path, mark: Mark) -> Iterator[tuple[Sequence[Line], tuple[int, str]]]:
        """What the ledger in ``folder`` says behind the mark, each piece with the mark behind it."""
        for lines, offset in pending(folder, mark.offset, self.runs.batch):
            for line in lines:
                if not (0 <= line.t < _TOO_LARGE and -_TOO_LARGE <= line.step < _TOO_LARGE):
                    got = f"step {line.step} at {line.t} of {line.name}"
                    rule, remedy = "a number of at most 64 bits", "Count otherwise there."
                    raise refuse("a step in metrics.jsonl", rule, got, remedy)
            yield lines, (offset, tail_digest(folder, offset))

    def _run_of(self, record: Record, mark: Mark) -> tuple[Known | Beginning, bool]:
        """The trial's run, and whether it was found by its tag: then nothing is known of what was told to it."""
        if mark.run in self._known:
            return self._known[mark.run], False
        mark.run, mark.offset, mark.tail, mark.told, mark.files = "", 0, "", "", {}
        this = execution(record.folder)
        for run in self._found.get(record.trial, ()):
            if run.tags.get("engram.execution", "") in (this, ""):
                return run, True
        ledger = first_line(record.folder / LEDGER)
        start = ledger.t if ledger else int((record.folder / "config.json").stat().st_mtime * 1000)
        return Beginning(self.experiment, run_name(record), start), False

    def _news(self, record: Record, run: Known | Beginning, sweep: str, parent: str, *, whole: bool) -> News:
        """What is to be said about a trial, with ``whole`` and to a new run all, else to which sweeps it belongs.

        A trial that several share stays below the first, and says that it belongs to all.
        """
        news, had = News(), run.tags if isinstance(run, Known) else {}
        if whole or isinstance(run, Beginning):
            news.tags = {"engram.trial": record.trial, "engram.execution": execution(record.folder), **tags_of(record)}
        if sweep:
            news.tags[membership(sweep)] = "yes"
        before = had.get(_PARENT, "")
        if parent and before != parent and not self._is_live(before):
            news.tags[_PARENT] = parent
            news.name = run_name(record)  # it may have been run alone before, with nothing to be told apart by
        news.untag = ASIDE_TAG if ASIDE_TAG in had else ""
        return news

    def _is_live(self, run: str) -> bool:
        if not run:
            return False
        try:
            return self.client.get_run(run).info.lifecycle_stage == "active"
        except Exception:
            return False  # gone for good, or the next call fails the same way and says so

    def _end(self, record: Record, news: News, state: str) -> None:
        """Options, data, final numbers and the state. Resumed trials come here again, with more to say."""
        news.params = {metric_key(name): value for name, value in params_of(record).items()}
        news.dataset = self._dataset(record)
        news.status = state.partition(":")[0]
        if news.status == "RUNNING":
            return
        ledger = extent_of(record.folder / LEDGER)
        news.end = ledger.last.t if ledger else int(newest(record.folder) * 1000)
        if news.status == "FINISHED":
            history, step = (ledger.names, ledger.step) if ledger else (frozenset[str](), 0)
            values = record.metrics.items()
            news.final = [Line(news.end, step, final_key(name, history), value) for name, value in values]

    def _dataset(self, record: Record) -> DatasetInput | None:
        digest = record.provenance.get("facts.data_sha256")
        if not digest:
            return None
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.entities import DatasetInput

        name = within(clean(str(record.config.get("dataset") or "data")), _DATASET_SIZE)
        source = CodeDatasetSource(tags={"dataset": name, "sha256": str(digest)})
        # the column for the digest holds 36 characters
        dataset = MetaDataset(source, name=name, digest=str(digest)[:32])
        return DatasetInput(dataset._to_mlflow_entity(), tags=[])

    def _hand_over(self, record: Record, run: Known, memory: Memory, mark: Mark) -> None:
        """Give the run its figures, its tables and its files."""
        if record.status == "done":
            for place, text in drawn(record).items():
                put(self.client, run, place, text)
        for _ in send(self.client, run, files_of(record)[0], mark.files):
            memory.save(mark)

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
        lines = [Line(end, 0, name, value) for name, value in values.items()]
        self.runs.tell(known_of(parent), News(lines=lines))
        failed = any(record.status == "failed" for record in sweep.records)
        for place, text in sweep_texts(sweep, self.out).items():
            put(self.client, known_of(parent), place, text)
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
        once = self._begin_anew(folder, mark) or mark.offset == 0
        for lines, at in self._pieces(folder, mark):
            self._tell(self.runs.known([mark.run])[mark.run], News(lines=lines, once=once), mark, at)
            memory.save(mark)

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
            parent = self.client.get_run(run.data.tags[_PARENT])
        except Exception:  # it has none, or it was deleted for good
            return False
        return parent.data.tags.get("engram.home") == self.home

    def release(self, run: Run, sweep: str, parent: str, others: Iterable[str]) -> None:
        """Take a run out of a sweep, from below its run ``parent`` to below one of the ``others``, if one is there."""
        above = run.data.tags.get(_PARENT, "")
        if above and (above == parent or not self._is_live(above)):
            heir = next(filter(self._is_live, others), None)
            if heir is None:
                self.client.delete_tag(run.info.run_id, _PARENT)
            else:
                self._tag(run, {_PARENT: heir})
        self.client.delete_tag(run.info.run_id, membership(sweep))

    def _tag(self, run: Run, tags: Mapping[str, str]) -> None:
        known = known_of(run)
        if tags.items() - known.tags.items():
            self.runs.tell(known, News(tags=dict(tags)))

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
