"""Plans of thousands of trials: what is asked, read and computed does not grow with each of them."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from engram.backbone.experiments.configs import TrainConfig
from engram.backbone.registry import Registry
from engram.benchmarks.commands.run import finish_sweep, plan_suite, show_plan
from engram.benchmarks.comparing import compare
from engram.benchmarks.driving.data_checks import check_data
from engram.benchmarks.driving.setting import PlanOutcome, RunSetting
from engram.benchmarks.driving.writing import write_trial
from engram.benchmarks.planning import plan as planning
from engram.benchmarks.planning.plan import Planner
from engram.benchmarks.planning.suite import check_suite
from engram.benchmarks.records import memory, trials
from engram.benchmarks.records.identity import DataSets
from engram.benchmarks.records.stored import write_json

GRID = {"lr": [0.1, 0.2], "weight_decay": [0.0, 0.1]}
SAID = {"tables": {}, "artifacts": {}, "seconds": 1.0}


class Plan:
    """A suite of a grid of four and so many seeds, planned anew each time as another process would."""

    def __init__(self, out: Path, seeds: int) -> None:
        self.registry, self.out = Registry.discover(), out
        values = {"experiment": "backbone.train", "name": "many", "seeds": seeds, "grid": GRID}
        self.suite = check_suite({**values, "options": {"backbone": "mlp"}}, "", out / "many.toml", self.registry)
        self.how = RunSetting(out=out, data_root=out, argv=[])

    def made(self):
        planner = Planner(self.registry, self.out, DataSets(self.registry, self.out))
        return planner, *plan_suite(self.suite, planner)

    def finished(self) -> list[str]:
        """Have all of it done."""
        _, found, plan = self.made()
        (self.out / "sweeps" / "many").mkdir(parents=True)
        write_json(self.out / "sweeps" / "many" / "plan.json", plan)
        for trial in found:
            write_trial(trial, self.how)
            write_json(trial.folder / "provenance.json", {})
            said = {"experiment": trial.experiment, "trial": trial.id, "config": dict(trial.config), **SAID}
            write_json(trial.folder / "result.json", {**said, "metrics": {"test/accuracy": 0.5 + trial.config["lr"]}})
        return [trial.id for trial in found]


@pytest.fixture
def asked(monkeypatch) -> Counter[str]:
    """How often planning asks for what the seed has no part in."""
    found: Counter[str] = Counter()

    def counted(where, name: str) -> None:
        original = getattr(where, name)
        is_method = isinstance(where.__dict__[name], classmethod)

        def call(*args, **more):
            found[name] += 1
            return original(*args, **more)

        monkeypatch.setattr(where, name, staticmethod(call) if is_method else call)

    for where, name in ((TrainConfig, "problems"), (TrainConfig, "requires"), (Registry, "discover")):
        counted(where, name)
    for name in ("unmet", "changed", "full", "used"):
        counted(planning, name)
    return found


def test_more_seeds_ask_no_more_of_a_plan(tmp_path, asked):
    counts = []
    for seeds in (2, 20):
        plan = Plan(tmp_path, seeds)
        asked.clear()
        _, found, _ = plan.made()
        assert len({trial.id for trial in found}) == 4 * seeds
        counts.append(dict(asked))
    assert counts[0] == counts[1] and counts[0]["problems"] == 4


def test_seeds_are_all_that_trials_of_a_cell_differ_in(tmp_path):
    _, found, _ = Plan(tmp_path, 3).made()
    alone = [planned(tmp_path, trial.config) for trial in found]
    assert [(trial.id, list(trial.config.items())) for trial in found] == [
        (trial.id, list(trial.config.items())) for trial in alone
    ]


def planned(out: Path, config):
    registry = Registry.discover()
    given = {name: config[name] for name in ("seed", "backbone", "lr", "weight_decay")}
    return Planner(registry, out, DataSets(registry, out)).add("backbone.train", given)


def test_finished_trials_are_listed_resumed_and_compared_without_being_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(memory, "_WORTH", 1)
    monkeypatch.setattr(memory, "_SETTLED_NS", -(10**9))
    memory._memory_of.cache_clear()  # pyright: ignore[reportPrivateUsage]
    plan = Plan(tmp_path, 3)
    done = plan.finished()
    planner, found, _ = plan.made()
    show_plan(found, ["lr"], False, planner.memory)  # reads all of them, once
    memory._memory_of.cache_clear()  # pyright: ignore[reportPrivateUsage]
    reads: list[Path] = []
    original = trials.read_json
    monkeypatch.setattr(trials, "read_json", lambda path: reads.append(path) or original(path))
    planner, found, content = plan.made()
    show_plan(found, ["lr"], True, planner.memory)
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["trials"]
    assert [(each["trial"], each["status"]) for each in told] == [(trial, "done") for trial in done]
    check_data(found, plan.registry, plan.how)
    flags = type("Flags", (), {"json": True, "out": tmp_path, "tracking_uri": None})
    finish_sweep(tmp_path, content, PlanOutcome(skipped=done), flags)  # pyright: ignore[reportArgumentType]
    assert {each["status"] for each in json.loads(capsys.readouterr().out)["trials"]} == {"skipped"}
    assert [group.interval.n for group in compare(tmp_path, "many").groups] == [3] * 4
    assert [path.name for path in reads] == ["plan.json"]


def test_a_thousand_trials_are_planned_in_bounded_time(tmp_path):
    plan = Plan(tmp_path, 250)
    began = time.process_time()
    _, found, _ = plan.made()
    assert len(found) == 1000 and time.process_time() - began < 2.0  # a tenth of a second where nothing else runs
