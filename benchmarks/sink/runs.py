"""The runs of a tracking store as a teller reads and writes them, and the way there that every store has: a client."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from engram.benchmarks.records.lines import Line
from engram.benchmarks.sink.read import runs_where
from engram.benchmarks.sink.state import BATCH, metric_key
from engram.benchmarks.sink.together import together

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Param, Run, RunTag

Entity = TypeVar("Entity", "Metric", "Param", "RunTag")

NAME_TAG = "mlflow.runName"
_AT_ONCE = 4  # runs that a server is told of: each waits for it most of the time
_ENTITIES = 100  # params or tags a request may carry
_REQUEST_SIZE, _AROUND = 900_000, 150  # bytes of a request, and what it has around an entity's name and value


@dataclass(frozen=True)
class Known:
    """A run as its store has it; ``files`` is the address of its files."""

    run: str
    experiment: str
    name: str
    status: str
    active: bool
    files: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Beginning:
    """A run that is to be made."""

    experiment: str
    name: str
    start: int
    """Unix milliseconds."""


@dataclass
class News:
    """What a run is to be told at once; telling it again changes nothing.

    ``params`` that the run has stay as they are, and so do measurements; of ``final`` those are left out whose name the
    run has. ``once``: nothing is known of what was told, so that ``lines`` are left out whose name and step it has.
    """

    tags: dict[str, str] = field(default_factory=dict)
    untag: str = ""
    name: str = ""
    params: dict[str, str] = field(default_factory=dict)
    dataset: DatasetInput | None = None
    lines: Sequence[Line] = ()
    once: bool = False
    final: Sequence[Line] = ()
    status: str = ""
    end: int | None = None


class Runs(Protocol):
    """The runs of one store."""

    batch: int
    """Measurements that one piece of news has at most."""
    at_once: int
    """Runs that may be told at a time, each by a thread of its own."""

    def known(self, runs: Sequence[str]) -> dict[str, Known]:
        """Those of ``runs`` that the store has, deleted ones too."""
        ...

    def found(self, experiments: Sequence[str], trials: Sequence[str]) -> dict[str, list[Known]]:
        """The runs of each trial by its tag, newest first, in those experiments; not those that were deleted."""
        ...

    def tell(self, run: Known | Beginning, news: News) -> Known:
        """Tell a run, which may have to be made first; as it is then, as far as it was read before."""
        ...


def known_of(run: Run) -> Known:
    """What MLflow says of a run, as ours."""
    info = run.info
    active = info.lifecycle_stage == "active"
    name, files = info.run_name or "", info.artifact_uri or ""
    return Known(info.run_id, info.experiment_id, name, info.status, active, files, run.data.tags)


def told(run: Known, news: News) -> Known:
    """What is known of a run after it was told."""
    named = {NAME_TAG: news.name} if news.name else {}
    tags = {key: value for key, value in {**run.tags, **news.tags, **named}.items() if key != news.untag}
    name, status = news.name or run.name, news.status or run.status
    return Known(run.run, run.experiment, name, status, run.active, run.files, tags)


class _History(threading.local):
    """Names and steps of the run that this thread last told with `once`."""

    def __init__(self) -> None:
        self.run = ""
        self.told: set[tuple[str, int]] = set()


class ClientRuns:
    """Those of any store, through MLflow's client."""

    batch = BATCH

    def __init__(self, client: MlflowClient) -> None:
        self.client = client
        self.at_once = _AT_ONCE if client.tracking_uri.startswith(("http://", "https://")) else 1
        self._history = _History()
        self._datasets = threading.Lock()

    def known(self, runs: Sequence[str]) -> dict[str, Known]:
        return {known.run: known for known in together(self._run, runs, self.at_once) if known is not None}

    def _run(self, run: str) -> Known | None:
        try:
            return known_of(self.client.get_run(run))
        except Exception as error:  # its type depends on the kind of store
            if "not found" not in str(error).lower() and "RESOURCE_DOES_NOT_EXIST" not in str(error):
                raise
            return None

    def found(self, experiments: Sequence[str], trials: Sequence[str]) -> dict[str, list[Known]]:
        def of(trial: str) -> list[Known]:
            text = f"tags.`engram.trial` = '{trial}'"
            return [known_of(run) for run in runs_where(self.client, experiments, text)]

        return dict(zip(trials, together(of, trials, self.at_once), strict=True))

    def tell(self, run: Known | Beginning, news: News) -> Known:
        entity: Run | None = None
        if isinstance(run, Beginning):
            tags = dict(news.tags)
            entity = self.client.create_run(run.experiment, start_time=run.start, run_name=run.name, tags=tags)
            run = known_of(entity)
        if news.untag:
            self.client.delete_tag(run.run, news.untag)
        if news.params or news.final or news.dataset is not None:
            entity = entity or self.client.get_run(run.run)
        self._log(run, news, entity)
        if news.dataset is not None and not (entity and entity.inputs and entity.inputs.dataset_inputs):
            self._log_dataset(run.run, news.dataset)
        if news.name and news.name != run.name:
            self.client.update_run(run.run, name=news.name)
        if news.status and news.end is not None:
            self.client.set_terminated(run.run, news.status, end_time=news.end)
        elif news.status and news.status != run.status:
            self.client.update_run(run.run, status=news.status)
        return told(run, news)

    def _log_dataset(self, run: str, dataset: DatasetInput) -> None:
        """Say what a run worked on. Of two machines that bring a data set at once a server refuses one."""
        with self._datasets:
            try:
                self.client.log_inputs(run, [dataset])
            except Exception as error:
                if getattr(error, "error_code", "") not in ("BAD_REQUEST", "INTERNAL_ERROR"):
                    raise
                self.client.log_inputs(run, [dataset])

    def _log(self, run: Known, news: News, entity: Run | None) -> None:
        """Tags, params and measurements, in one request where that holds them; ``entity``: the run as it was read."""
        from mlflow.entities import Metric, Param, RunTag

        lines = self._new(run.run, news.lines) if news.once else news.lines
        held = {*(entity.data.metrics if entity else ()), *(metric_key(line.name) for line in lines)}
        lines = [*lines, *(line for line in news.final if metric_key(line.name) not in held)]
        if self._history.run == run.run:
            self._history.told.update((metric_key(line.name), line.step) for line in lines)
        there = entity.data.params if entity else {}
        tags = [RunTag(key, value) for key, value in news.tags.items() if run.tags.get(key) != value]
        params = [Param(key, value) for key, value in news.params.items() if key not in there]
        metrics = [Metric(metric_key(line.name), line.value, line.t, line.step) for line in lines]
        if not (tags or params or metrics):
            return
        if _fit(tags, params, metrics):
            self.client.log_batch(run.run, metrics, params, tags)
            return
        for some in in_requests(tags, _ENTITIES):
            self.client.log_batch(run.run, tags=some)
        for each in in_requests(params, _ENTITIES):
            self.client.log_batch(run.run, params=each)
        for part in in_requests(metrics, BATCH):
            self.client.log_batch(run.run, part)

    def _new(self, run: str, lines: Sequence[Line]) -> list[Line]:
        """Those of ``lines`` whose name and step the run does not have."""
        if self._history.run != run:
            history = self.client.get_metric_history
            names = self.client.get_run(run).data.metrics
            self._history.told = {(name, point.step) for name in names for point in history(run, name)}
            self._history.run = run  # last: what was asked in vain is asked again
        return [line for line in lines if (metric_key(line.name), line.step) not in self._history.told]


def _fit(tags: Sequence[RunTag], params: Sequence[Param], metrics: Sequence[Metric]) -> bool:
    """Whether one request may carry them all."""
    if len(tags) > _ENTITIES or len(params) > _ENTITIES or len(tags) + len(params) + len(metrics) > BATCH:
        return False
    return sum(map(_size, tags)) + sum(map(_size, params)) + sum(map(_size, metrics)) <= _REQUEST_SIZE


def _size(entity: Metric | Param | RunTag) -> int:
    return _AROUND + len(json.dumps([entity.key, str(entity.value)]))


def in_requests(entities: Sequence[Entity], most: int) -> Iterator[list[Entity]]:
    """Metrics, params or tags in as many requests as MLflow asks for, by their number and by their bytes."""
    part: list[Entity] = []
    size = 0
    for entity in entities:
        needed = _size(entity)
        if part and (len(part) == most or size + needed > _REQUEST_SIZE):
            yield part
            part, size = [], 0
        part.append(entity)
        size += needed
    if part:
        yield part
