"""Searches, with trials whose results are made up: what is asked, told, given up, and gone on with from the record."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.backbone.errors import UserError
from engram.backbone.registry import Registry
from engram.benchmarks.commands.searching import finish_search
from engram.benchmarks.compare.choosing import look_through
from engram.benchmarks.driving.energy import Meter
from engram.benchmarks.driving.proposing import search as searching
from engram.benchmarks.driving.proposing import tpe
from engram.benchmarks.driving.proposing.halving import goes_on
from engram.benchmarks.driving.proposing.search import Searching
from engram.benchmarks.driving.setting import PlanOutcome
from engram.benchmarks.planning.plan import Planner
from engram.benchmarks.planning.search import Search
from engram.benchmarks.planning.space import draw
from engram.benchmarks.planning.suite import Suite, load_suite
from engram.benchmarks.records.history import History, Rung
from engram.benchmarks.records.identity import DataSets
from engram.benchmarks.records.lines import sealed
from engram.benchmarks.records.pace import Progress
from engram.benchmarks.records.search import Clocked, SearchRecord, read_events
from engram.benchmarks.records.stored import Damaged, read_json, write_json
from engram.benchmarks.records.trials import PRUNED, Record, read_sweep
from engram.benchmarks.report.page import page
from engram.benchmarks.report.subject import find
from engram.benchmarks.sink.files import sweep_texts
from engram.benchmarks.worker.ledger import Ledger

REGISTRY = Registry.discover()
SUITE = """
name = "s"
experiment = "backbone.train"
seeds = 2
[options]
dataset = "digits"
backbone = "mlp"
[search]
method = "METHOD"
objective = OBJECTIVE
trials = 14
[search.space]
lr = { low = 0.001, high = 1.0, log = true }
"backbone.width" = [0.5, 1.0, 2.0]
momentum = { low = 0.0, high = 0.9, when = { "backbone.width" = 2.0 } }
"""
STEPS = 8


class World:
    """A folder of trials, and a search in it whose trials take no time."""

    def __init__(self, tmp_path, method="random", objective='"validation/accuracy"', **more):
        self.out, self.folder = tmp_path, tmp_path / "sweeps" / "s"
        self.folder.mkdir(parents=True, exist_ok=True)
        path = tmp_path / "s.toml"
        path.write_text(SUITE.replace("METHOD", method).replace("OBJECTIVE", objective))
        self.suite: Suite = load_suite(path, REGISTRY)
        assert self.suite.search is not None
        self.search: Search = replace(self.suite.search, **more)
        self.suite = replace(self.suite, search=self.search)
        self.time, self.ran, self.fails = 0.0, [], set()
        self.silent = False  # whether trials measure nothing before they end

    def begin(self) -> Searching:
        planner = Planner(REGISTRY, self.out, DataSets(REGISTRY, self.out))
        return Searching(self.suite, planner, REGISTRY, self.folder, self.publish, clock=lambda: self.time)

    def publish(self, cells):
        said = {"method": self.search.method, "objectives": [metric.name for metric in self.search.objectives]}
        axes: dict[str, list[object]] = {axis.name: [] for axis in self.search.space}
        plan = {"trials": list(cells), "axes": axes, "seeds": list(self.suite.seeds), "search": said}
        write_json(self.folder / "plan.json", plan)

    @property
    def cells(self):
        """What those see who look at the search."""
        return [(record.options, record.trial) for record in read_sweep(self.out, "s").records]

    def value(self, config, share=1.0):
        """What a network with these options reaches after a share of its training."""
        best = 1 / (1 + math.log10(config["lr"] / 0.03) ** 2) + config["backbone_options"]["width"] / 10
        return best * (0.5 + 0.5 * share) - 0.01 * config["seed"] + 0.001 * config["momentum"]

    def run(self, at: Searching, most=10_000):
        """Drive it, one trial after the other, at most so many."""
        for _ in range(most):
            if at.exhausted:
                break
            for trial in at.ask(1):
                at.tell(trial, self.work(at, trial))
        return at

    def work(self, at, trial) -> Record:
        self.time += 1.0
        if Record(trial.folder).status != "done":
            self.ran.append(trial.id)
            trial.folder.mkdir(parents=True, exist_ok=True)
            write_json(trial.folder / "config.json", trial.stored())
            (trial.folder / PRUNED).unlink(missing_ok=True)
            if trial.id in self.fails:
                write_json(trial.folder / "error.json", {"kind": "trial", "message": "no"})
                return Record(trial.folder)
            Progress(0, STEPS, "", 0.0, 0.0, 0.0).write(trial.folder)
            with Ledger(trial.folder / "metrics.jsonl") as ledger:
                for step in range(1, STEPS + 1):
                    value = self.value(trial.config, step / STEPS)
                    ledger.log(step, {"train/loss": 1.0} | ({} if self.silent else {"validation/accuracy": value}))
                    if why := at.look(trial, Record(trial.folder)):
                        write_json(trial.folder / PRUNED, {"why": why})
                        return Record(trial.folder)
            (trial.folder / "progress.json").unlink()
            metrics = {"validation/accuracy": self.value(trial.config), "parameters": 1000 * trial.config["lr"]}
            result = {"experiment": trial.experiment, "trial": trial.id, "config": trial.config, "metrics": metrics}
            write_json(trial.folder / "result.json", {**result, "tables": {}, "artifacts": {}})
        return Record(trial.folder)

    def events(self):
        """What the record says, time apart."""
        found, _, lost = read_events(self.folder / "search.jsonl")
        assert not lost
        return [replace(event, seconds=0.0, joules=0.0) for event in found if not isinstance(event, Clocked)]


def test_random_search_asks_for_its_draws_with_every_seed(tmp_path):
    world = World(tmp_path)
    at = world.run(world.begin())
    wanted = [draw(world.search.space, 0, number) for number in range(7)]
    assert [proposal.options for proposal in at.history.proposals] == wanted
    made = zip([each for each in wanted for _ in world.suite.seeds], world.ran, strict=True)
    assert world.cells == [*made] and [cell["seed"] for cell in at.cells()] == [0, 1] * 7
    assert len(world.ran) == len(set(world.ran)) == 14 == at.total
    assert at.ended == "its 14 trials are done"
    configs = [Record(tmp_path / "trials" / each).about["config"] for each in at.history.proposals[0].trials]
    assert at.history.scores(at.history.proposals[0]) == [pytest.approx(sum(map(world.value, configs)) / 2)]


@pytest.mark.parametrize(
    ("method", "silent"), [("random", False), ("tpe", False), ("halving", False), ("halving", True)]
)
def test_a_search_cut_anywhere_goes_on_as_if_it_had_not_been(tmp_path, method, silent, monkeypatch):
    monkeypatch.setattr(tpe, "STARTUP", 3)
    world = World(tmp_path, method, trials=10)
    world.silent = silent
    world.run(world.begin()).close()
    path = world.folder / "search.jsonl"
    whole, events, ran = path.read_bytes(), world.events(), list(world.ran)
    for end in _ends(whole):
        path.write_bytes(whole[: min(len(whole), end + 7)])  # and some bytes of the next line
        world.run(world.begin()).close()
        assert world.events() == events
        again = world.ran[len(ran) :]  # no trial is done twice; what was given up is gone on with
        assert all(Record(tmp_path / "trials" / trial).status == "pruned" for trial in again)


def test_a_record_cut_at_any_byte_has_the_lines_that_were_whole(tmp_path):
    world = World(tmp_path, trials=4)
    world.run(world.begin()).close()
    path = world.folder / "search.jsonl"
    whole = path.read_bytes()
    ends = _ends(whole)
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        found, size, lost = read_events(path)
        assert (size, lost) == (max(end for end in ends if end <= cut), "")
        assert len(found) == ends.index(size)


def _ends(whole: bytes) -> list[int]:
    """Where lines end."""
    return [0, *(place + 1 for place, byte in enumerate(whole) if byte == ord("\n"))]


@pytest.mark.parametrize("method", ["random", "tpe", "halving"])
def test_a_driver_that_dies_between_any_two_trials(tmp_path, method, monkeypatch):
    monkeypatch.setattr(tpe, "STARTUP", 3)
    whole, parts = World(tmp_path / "whole", method, trials=12), World(tmp_path / "parts", method, trials=12)
    whole.run(whole.begin())
    for _ in range(40):
        parts.run(parts.begin(), most=1)
    assert parts.events() == whole.events()
    assert parts.ran == whole.ran
    assert parts.cells == whole.cells


def test_tpe_looks_where_scores_are_good(tmp_path):
    world = World(tmp_path, "tpe", trials=60)
    at = world.run(world.begin())
    assert at.history.proposals[9].options == draw(world.search.space, 0, 9)
    known = [proposal.options for proposal in at.history.proposals[10:]]
    assert known != [draw(world.search.space, 0, number) for number in range(10, 30)]
    near = [abs(math.log10(options["lr"] / 0.03)) < 0.5 for options in known]
    drawn = [abs(math.log10(draw(world.search.space, 0, n)["lr"] / 0.03)) < 0.5 for n in range(10, 200)]
    assert sum(near) / len(near) > 1.5 * sum(drawn) / len(drawn)
    assert all(("momentum" in options) == (options["backbone.width"] == 2.0) for options in known)


def test_tpe_goes_by_several_objectives(tmp_path):
    world = World(tmp_path, "tpe", '["validation/accuracy", "parameters"]', trials=26)
    at = world.run(world.begin())
    assert [len(at.history.scores(each) or ()) for each in at.history.proposals] == [2] * 13


def test_halving_gives_up_what_is_not_among_the_best(tmp_path):
    world = World(tmp_path, "halving", trials=20)
    at = world.run(world.begin())
    states = [at.history.state(proposal) for proposal in at.history.proposals]
    assert {"done", "pruned"} == set(states)
    assert len(states) > 10  # at the cost of ten
    for proposal in at.history.proposals:
        if proposal.given_up is not None:
            assert proposal.rungs
            first = Record(tmp_path / "trials" / proposal.trials[0])
            told = at.history.results
            assert first.status == "pruned" or proposal.trials[0] in told
            assert proposal.trials[1] not in told or proposal.given_up > 0.5
    shares = [1 / 9, 1 / 3]
    for rung, share in enumerate(shares):  # the first value at or behind a rung, after the same work for all
        config = [Record(tmp_path / "trials" / each.trials[0]).about["config"] for each in at.history.proposals]
        reached = [
            each for each, proposal in zip(config, at.history.proposals, strict=True) if len(proposal.rungs) > rung
        ]
        step = math.ceil(share * 2 * STEPS) / STEPS
        values = [proposal.rungs[rung] for proposal in at.history.proposals if len(proposal.rungs) > rung]
        assert values == pytest.approx([world.value(each, step) for each in reached])
        assert at.history.at_rung(rung).count == len(values)
    assert at.history.work <= 20
    why = Record(
        tmp_path / "trials" / next(e for e in world.ran if Record(tmp_path / "trials" / e).status == "pruned")
    ).why
    assert "was not among the best of 3 at rung" in why


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]), min_size=1, max_size=20), st.integers(2, 4), st.booleans())
def test_rungs_are_those_of_optuna(values, factor, up):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=factor)
    study = optuna.create_study(direction="maximize" if up else "minimize", pruner=pruner)
    for index, value in enumerate(values):
        trial = study.ask()
        trial.report(value, step=1)
        assert goes_on(value, Rung(values[:index]), factor, "max" if up else "min") == (not trial.should_prune())


def test_a_failed_seed_is_tried_again_by_the_next_driver(tmp_path):
    world = World(tmp_path)
    at = world.begin()
    (trial,) = at.ask(1)
    world.fails.add(trial.id)
    at.tell(trial, world.work(at, trial))
    world.run(at)
    assert [at.history.state(each) for each in at.history.proposals] == ["failed", *["done"] * 6]
    world.fails.clear()
    (trial.folder / "error.json").unlink()
    at = world.run(world.begin())
    assert world.ran[14:] == [trial.id]
    assert [at.history.state(each) for each in at.history.proposals] == ["done"] * 7


def test_proposals_that_cannot_be_cost_nothing(tmp_path, monkeypatch, capsys):
    world = World(tmp_path)
    at = world.begin()
    plan = at._plan

    def refuse(options):
        if options["backbone.width"] == 0.5:
            raise UserError("width must be wider; got 0.5. Widen it.")
        return plan(options)

    monkeypatch.setattr(at, "_plan", refuse)
    world.run(at)
    assert len(world.ran) == 14
    assert "refused" in map(at.history.state, at.history.proposals)
    assert "cannot be: width must be wider; got 0.5." in capsys.readouterr().err


def test_a_small_space_is_searched_to_its_end(tmp_path):
    world = World(tmp_path)
    world.suite = replace(world.suite, search=replace(world.search, space=world.search.space[1:2]))
    at = world.run(world.begin())
    assert (len(world.ran), len(world.cells)) == (6, 6)
    assert at.ended == "the last 100 proposals brought nothing new: the space has no more"
    assert len(at.history.proposals) > 100


def test_time_is_counted_over_all_drivers(tmp_path):
    world = World(tmp_path, trials=None, hours=5.5 / 3600)
    world.run(world.begin(), most=3)
    world.time += 1000  # nobody worked on it
    at = world.run(world.begin())
    assert len(world.ran) == 6  # the third proposal was begun, and running ones finish
    assert at.ended.startswith("its 0.00152778 hours")
    assert world.begin().exhausted


def test_another_search_of_the_same_name_is_refused(tmp_path):
    world = World(tmp_path)
    world.run(world.begin(), most=2)
    world.search = replace(world.search, trials=16)
    world.suite = replace(world.suite, search=world.search)
    world.run(world.begin())
    assert len(world.ran) == 16  # a larger budget is the same search
    other = replace(world.suite, search=replace(world.search, seed=1), options={**world.suite.options, "epochs": 3})
    world.suite = other
    with pytest.raises(
        UserError, match=r"the suite must be what the search 's' was begun with; got another options, seed"
    ):
        world.begin()


@pytest.mark.parametrize("whole", [False, True], ids=["begun", "done"])
def test_a_search_of_other_data_is_refused(tmp_path, monkeypatch, whole):
    world = World(tmp_path)
    if whole:
        world.run(world.begin())
    else:
        world.begin().ask(1)
    monkeypatch.setattr(searching.Planner, "add", lambda self, *_: replace(add(self, *_), id="0" * 16))
    with pytest.raises(UserError, match="must be of the data and versions it began with; got others"):
        world.begin()


add = searching.Planner.add


def test_a_damaged_line_costs_nothing_but_the_lines_behind_it(tmp_path, capsys):
    world = World(tmp_path)
    world.run(world.begin()).close()
    path, events = world.folder / "search.jsonl", world.events()
    lines = path.read_bytes().split(b"\n")
    lines[4] = lines[4].replace(b"1", b"2", 1)
    path.write_bytes(b"\n".join(lines))
    world.run(world.begin()).close()
    assert world.events() == events
    assert len(world.ran) == 14
    assert "line 5 of" in capsys.readouterr().err


def test_a_line_of_another_shape_is_damaged(tmp_path):
    path = tmp_path / "search.jsonl"
    for wrong in ({"event": "ask", "proposal": -1}, {"event": "none"}, {"event": "tell", "trial": 3, "status": "done"}):
        path.write_bytes(sealed(wrong, 0))
        assert read_events(path)[0] == []
    record = SearchRecord(path)
    assert (record.events, path.read_bytes()) == ([], b"")
    record.close()


def test_an_objective_that_no_trial_reports_ends_the_search(tmp_path):
    world = World(tmp_path, objective='"train_seconds"')
    at = world.run(world.begin())
    assert len(world.ran) == 1
    assert at.trouble.startswith("search.objective must be reported by trial")
    at = world.run(world.begin())
    assert at.exhausted
    assert len(world.ran) == 1


def test_joules_are_refused_where_nothing_measures_them(tmp_path, monkeypatch):
    world = World(tmp_path, trials=None, joules=50.0)
    monkeypatch.setattr(searching, "Meter", lambda: Meter(tmp_path / "nothing", "no-such-library.so"))
    with pytest.raises(UserError, match=r"search\.joules must be left out where no meter can be read; got 50"):
        world.begin()


def test_joules_are_those_that_counters_went_up_by(tmp_path, monkeypatch):
    for name, value in (("intel-rapl:0", 900), ("intel-rapl:1", 10), ("intel-rapl:0:0", 5), ("intel-rapl:2", 950)):
        (tmp_path / "rapl" / name).mkdir(parents=True)
        said = "psys" if name == "intel-rapl:2" else f"package-{name[-1]}"  # all of the platform, packages included
        (tmp_path / "rapl" / name / "name").write_text(f"{said}\n")
        (tmp_path / "rapl" / name / "energy_uj").write_text(str(value * 10**6))
        (tmp_path / "rapl" / name / "max_energy_range_uj").write_text(str(1000 * 10**6))
    meter = Meter(tmp_path / "rapl", "no-such-library.so")
    assert meter.sources == ("package-0 (RAPL)", "package-1 (RAPL)")
    (tmp_path / "rapl/intel-rapl:0/energy_uj").write_text(str(20 * 10**6))  # it ran over
    (tmp_path / "rapl/intel-rapl:1/energy_uj").write_text(str(11 * 10**6))
    assert (meter.joules(), meter.joules()) == (121.0, 121.0)
    monkeypatch.setattr(searching, "Meter", lambda: meter)
    world = World(tmp_path / "out", trials=None, joules=200.0)
    at = world.run(world.begin(), most=2)
    (tmp_path / "rapl/intel-rapl:1/energy_uj").write_text(str(300 * 10**6))
    assert at.exhausted
    assert at.ended == "its 200 joules are used"


def test_a_trial_whose_driver_was_killed_before_it_said_that_it_gave_it_up(tmp_path):
    world = World(tmp_path, "halving")
    at = world.run(world.begin())
    given_up = next(e for e in at.history.proposals if at.history.state(e) == "pruned")
    last = [trial for trial in given_up.trials if trial in at.history.results][-1]
    path = world.folder / "search.jsonl"
    text = path.read_bytes().split(b"\n")
    told = next(n for n, line in enumerate(text) if b'"pruned"' in line and last.encode() in line)
    path.write_bytes(b"\n".join(text[:told]) + b"\n")
    folder = tmp_path / "trials" / last
    (folder / PRUNED).unlink()
    write_json(folder / "provenance.json", {"facts": {}})
    world.begin()
    assert Record(folder).status == "pruned"


@pytest.mark.parametrize("method", ["random", "halving"])
def test_who_looks_sees_every_proposal_at_once_and_the_plan_is_written_twice(tmp_path, method, monkeypatch):
    world, written = World(tmp_path, method), []
    at = world.begin()
    monkeypatch.setattr(at, "publish", lambda cells: written.append(len(cells)) or world.publish(cells))
    while not at.exhausted:
        for trial in at.ask(1):
            assert world.cells == [(cell["options"], cell["trial"]) for cell in at.cells()]
            assert trial.id in [identity for _, identity in world.cells]
            at.tell(trial, world.work(at, trial))
    sweep = read_sweep(tmp_path, "s")
    widths = [*dict.fromkeys(record.options["backbone.width"] for record in sweep.records)]
    assert sweep.axes["backbone.width"] == widths and written == []
    at.close()
    assert written == [len(sweep.records)] and read_sweep(tmp_path, "s").axes == sweep.axes


def test_a_search_without_its_record_is_what_its_plan_says(tmp_path):
    world = World(tmp_path)
    world.run(world.begin()).close()
    before = world.cells
    (world.folder / "search.jsonl").unlink()
    assert len(before) == 14 and world.cells == before


def test_the_store_is_told_the_record(tmp_path):
    world = World(tmp_path)
    world.run(world.begin(), most=3)
    texts = sweep_texts(read_sweep(tmp_path, "s"), tmp_path)
    assert {*texts} == {"report.html", "plan.json", "suite.toml", "search.jsonl"}
    assert texts["search.jsonl"] == (world.folder / "search.jsonl").read_text()


def test_a_record_that_cannot_be_read_is_damage(tmp_path):
    world = World(tmp_path)
    world.run(world.begin(), most=2).close()
    (world.folder / "search.jsonl").unlink()
    (world.folder / "search.jsonl").mkdir()
    with pytest.raises(Damaged, match=r"search\.jsonl must be whole; got a file that is not readable here"):
        world.cells  # noqa: B018


@pytest.mark.parametrize("harm", [lambda raw, at: raw[:at], lambda raw, at: raw[:at] + b"\x00" + raw[at + 1 :]])
def test_who_looks_at_a_damaged_record_sees_what_stands_before(tmp_path, harm):
    world = World(tmp_path, "halving")
    world.run(world.begin(), most=4)
    path, before = world.folder / "search.jsonl", world.cells
    whole = path.read_bytes()
    for at in range(0, len(whole), 61):
        path.write_bytes(harm(whole, at))
        assert world.cells == before[: len(world.cells)]


@pytest.mark.parametrize(
    "event",
    [
        {"event": "ask", "proposal": 5, "options": {}, "trials": ["a"]},
        {"event": "rung", "proposal": 5, "rung": 0, "value": 1.0, "share": 0.1, "kept": True},
    ],
)
def test_events_that_cannot_follow_are_another_line(tmp_path, event):
    world = World(tmp_path)
    at = world.run(world.begin(), most=2)
    before, count = world.cells, len(read_events(world.folder / "search.jsonl")[0])
    with (world.folder / "search.jsonl").open("ab") as file:
        file.write(sealed({"seconds": 0.0, "joules": 0.0, **event}, count))
    assert world.cells == before and len(at.history.proposals) == 1
    assert "is not the one that was written" in read_events(world.folder / "search.jsonl")[2]


@pytest.mark.parametrize("method", ["random", "halving"])
def test_what_is_kept_of_a_search_is_what_its_proposals_say(tmp_path, method):
    """Counted anew at every event: states, work and who is better at a rung."""
    world = World(tmp_path, method)
    at = world.begin()
    (first,) = at.ask(1)
    world.fails.add(first.id)
    at.tell(first, world.work(at, first))
    world.run(at).close()
    seen = History(in_turn=method == "halving")
    for event in read_events(world.folder / "search.jsonl")[0]:
        seen.add(event)
        states = [seen.state(each) for each in seen.proposals]
        assert states == [_state(seen, each) for each in seen.proposals]
        assert seen.open == states.count("open")
        assert seen.work == pytest.approx(sum(_work(seen, each) for each in seen.proposals))
    for rung in range(2):
        values = [each.rungs[rung] for each in seen.proposals if len(each.rungs) > rung]
        for value in values:
            assert seen.at_rung(rung).better(value, "max") == sum(other > value for other in values)
            assert seen.at_rung(rung).better(value, "min") == sum(other < value for other in values)


def _state(history, proposal):
    told = [history.results[trial].status for trial in proposal.trials if trial in history.results]
    if told.count("done") == len(proposal.trials):
        return "done"
    if proposal.given_up is not None:
        return "pruned"
    return "failed" if "failed" in told and (history.in_turn or len(told) == len(proposal.trials)) else "open"


def _work(history, proposal):
    if history.state(proposal) in ("open", "done"):
        return len(proposal.trials)
    told = [history.results[trial].status for trial in proposal.trials if trial in history.results]
    return max(len(told) - told.count("pruned"), (proposal.given_up or 0.0) * len(proposal.trials))


@pytest.mark.parametrize("method", ["random", "halving"])
def test_a_proposal_costs_the_same_however_many_stand_before_it(tmp_path, method, monkeypatch):
    """What is looked at, counted: proposals whose state is worked out."""
    world = World(tmp_path, method, trials=40)
    world.silent, looked, counts = True, [], []
    original = History._look
    monkeypatch.setattr(History, "_look", lambda self, proposal: looked.append(1) or original(self, proposal))
    at = world.begin()
    while not at.exhausted:
        looked.clear()
        for trial in at.ask(1):
            at.tell(trial, world.work(at, trial))
        counts.append(len(looked))
    assert max(counts[-10:]) <= max(counts[:10])


@pytest.mark.parametrize("silent", [False, True], ids=["within a seed", "behind one"])
def test_what_was_given_up_says_so_and_where(tmp_path, capsys, silent):
    world = World(tmp_path, "halving", trials=16, factor=2, rungs=1)
    world.silent = silent
    at = world.run(world.begin())
    at.close()
    lost = {proposal.trials[0]: proposal for proposal in at.history.proposals if proposal.given_up is not None}
    sweep = read_sweep(tmp_path, "s")
    assert lost and lost.keys() <= sweep.given_up.keys()
    assert {Record(tmp_path / "trials" / trial).status for trial in lost} == {"done" if silent else "pruned"}
    flags = SimpleNamespace(json=False, out=tmp_path)
    plan = read_json(world.folder / "plan.json") | {"name": "s"}
    finish_search(tmp_path, plan, PlanOutcome(), flags)  # pyright: ignore[reportArgumentType]
    out = capsys.readouterr().out
    flags.json = True
    finish_search(tmp_path, plan, PlanOutcome(), flags)  # pyright: ignore[reportArgumentType]
    cells = {cell["trial"]: cell for cell in json.loads(capsys.readouterr().out)["trials"]}
    text = page(find(tmp_path, "s"))
    for trial, proposal in lost.items():
        assert proposal.given_up is not None
        fate = f"at rung 1, after {proposal.given_up:.0%} of its work, with {proposal.rungs[0]:.4g}"
        assert fate in out and fate in text and cells[trial]["given_up"] == fate
    assert [trial for trial, cell in cells.items() if "given_up" in cell] == [*sweep.given_up]
    world = World(tmp_path / "none", "random")
    world.run(world.begin()).close()
    assert "given up" not in page(find(tmp_path / "none", "s"))


@pytest.mark.parametrize("method", ["random", "halving"])
def test_a_report_shows_test_images_of_what_was_chosen_alone(tmp_path, method):
    world = World(tmp_path, method)
    world.run(world.begin())
    marks = {}
    for trial in world.ran:
        path = tmp_path / "trials" / trial / "result.json"
        if not (result := read_json(path)):
            continue
        mark = marks[trial] = f"shown by {result['config']['lr']}"  # seeds of a proposal share it
        matrix = {"kind": "confusion", "title": "test", "classes": [f"{mark}, a", f"{mark}, b"], "counts": [[9, 1]] * 2}
        curve = {"title": "t", "x_label": "x", "y_label": "y", "series": {f"line {mark}": [[1, 0.5], [2, 0.6]]}}
        tables = {"test": [{"row": f"row {mark}"}]}
        write_json(path, {**result, "figures": {"confusion": matrix, "curve": curve}, "tables": tables})
    text = page(find(tmp_path, "s"))
    (chosen,) = look_through(read_sweep(tmp_path, "s")).chosen
    best = marks[chosen.records[0].trial]
    assert all(said in text for said in (f"{best}, a", f"row {best}", f"line {best}"))
    assert len({*marks.values()}) > 4 and not any(mark in text for mark in marks.values() if mark != best)
