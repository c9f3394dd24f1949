"""A search that gives streams up in the middle, by what they say of held-out images after each task."""

from __future__ import annotations

import pytest

from engram.backbone.errors import UserError
from engram.backbone.registry import Registry
from engram.benchmarks.driving.proposing.search import Searching
from engram.benchmarks.driving.setting import RunSetting
from engram.benchmarks.driving.writing import write_trial
from engram.benchmarks.planning.plan import Planner
from engram.benchmarks.planning.suite import load_suite
from engram.benchmarks.records.identity import DataSets
from engram.benchmarks.records.trials import Record
from engram.benchmarks.worker.stopping import STOPPED, Stop
from engram.benchmarks.worker.trial import work

SUITE = """
name = "s"
experiment = "continual.stream"
[options]
tasks = 4
iterations = 20
validation = 0.2
[search]
method = "halving"
objective = "validation/average_accuracy"
trials = 2
factor = 2
rungs = 1
seed = 2
[search.space]
lr = [1e-7, 0.01]
"""


class Looking(Stop):
    """As a driver does: asks the search between two units of work whether there is hope."""

    def __init__(self, search, trial):
        self._search, self._trial, self.given_up = search, trial, ""

    @property
    def asked(self) -> bool:
        self.given_up = self.given_up or self._search.look(self._trial, Record(self._trial.folder))
        return bool(self.given_up)


@pytest.mark.parametrize(("strategies", "scenario"), [(("finetune",), "class"), (("si", "er"), "task")])
def test_a_stream_without_hope_is_given_up_halfway(tmp_path, strategies, scenario):
    registry, path = Registry.discover(), tmp_path / "s.toml"
    given = f'scenario = "{scenario}"\nstrategies = {list(strategies)}\n'
    given += '"strategies.si.c" = 0.1\n' if "si" in strategies else ""
    path.write_text(SUITE.replace("tasks = 4\n", f"tasks = 4\n{given}"))
    suite = load_suite(path, registry)
    planner = Planner(registry, tmp_path, DataSets(registry, tmp_path))
    (tmp_path / "sweeps" / "s").mkdir(parents=True)
    search = Searching(suite, planner, registry, tmp_path / "sweeps" / "s", lambda cells: None)
    ended = []
    for _ in range(2):
        (trial,) = search.ask(1)
        write_trial(trial, RunSetting(out=tmp_path, data_root=tmp_path, argv=[], device="cpu"))
        stop = Looking(search, trial)
        code = work(trial.folder, stop)
        ended.append((trial.config["lr"], code, bool(stop.given_up)))
        search.tell(trial, Record(trial.folder))
    assert ended == [(0.01, 0, False), (1e-7, STOPPED, True)]
    first, second = search.history.proposals
    assert (first.given_up, second.given_up) == (None, 0.5)
    assert first.rungs[0] > second.rungs[0]
    steps = [line.step for line in Record(trial.folder).ledger() if line.name == "validation/average_accuracy"]
    assert steps == [1, 2]


def test_a_search_without_held_out_images_is_refused_before_any_work(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(SUITE.replace("validation = 0.2\n", ""))  # by default all images are trained on
    with pytest.raises(UserError, match="validation must be more than 0 for a search, which chooses by it; got 0"):
        load_suite(path, Registry.discover())
