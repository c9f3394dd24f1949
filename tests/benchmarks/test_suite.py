"""Suite files: what they mean, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from engram.backbone.errors import UserError
from engram.backbone.registry import Registry
from engram.benchmarks.commands.run import plan_suite, run_suite
from engram.benchmarks.driving.setting import PlanOutcome, RunSetting
from engram.benchmarks.planning.plan import Planner
from engram.benchmarks.planning.suite import load_suite
from engram.benchmarks.records.identity import DataSets
from engram.benchmarks.records.stored import read_json

REGISTRY = Registry.discover()
GOOD = """
experiment = "backbone.train"
seeds = 2
[options]
dataset = "digits"
epochs = 1
[options.backbone_options]
pooling = "max"
[grid]
backbone = ["lenet5", "vgg-tiny"]
"backbone.width" = [0.5, 2]
"""


def load(tmp_path: Path, text: str):
    path = tmp_path / "nets.toml"
    path.write_text(text)
    return load_suite(path, REGISTRY)


def test_grid_times_seeds(tmp_path):
    suite = load(tmp_path, GOOD)
    assert (suite.name, suite.seeds) == ("nets", (0, 1))
    assert suite.axes == {"backbone": ["lenet5", "vgg-tiny"], "backbone.width": [0.5, 2]}
    assert len(suite.points) == 8
    point = suite.points[-1]
    assert (point.options, point.seed) == ({"backbone": "vgg-tiny", "backbone.width": 2}, 1)
    assert point.given["backbone_options"] == {"pooling": "max", "width": 2.0}


def test_a_table_in_the_grid_is_the_same(tmp_path):
    table = GOOD.replace('"backbone.width" = [0.5, 2]', "backbone_options = { width = [0.5, 2] }")
    assert load(tmp_path, table).points == load(tmp_path, GOOD).points


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ('"backbone.width" = [', '"backbone_options.width" = ['),
        ('"backbone.width" = [', '"--backbone.width" = ['),
        ('"backbone.width" = [0.5, 2]', "[grid.backbone_options]\nwidth = [0.5, 2]"),
        ("epochs = 1", '"--epochs" = 1'),
        ("[options.backbone_options]", "[options.backbone]"),
        ('[options.backbone_options]\npooling = "max"', '"backbone.pooling" = "max"'),
    ],
)
def test_every_spelling_is_the_same(tmp_path, written, instead):
    assert written in GOOD
    suite = load(tmp_path, GOOD.replace(written, instead))
    assert (suite.axes, suite.points) == (load(tmp_path, GOOD).axes, load(tmp_path, GOOD).points)


def test_a_name_with_a_dot_needs_quotes(tmp_path):
    with pytest.raises(
        UserError, match=r'Cannot overwrite a value .* Write names with a dot in quotes: "dataset\.size"'
    ):
        load(tmp_path, GOOD.replace("epochs = 1", "dataset.size = 8"))


def test_one_option_in_two_spellings(tmp_path):
    with pytest.raises(UserError, match="batch-size must be given once; got batch_size and batch-size"):
        load(tmp_path, GOOD.replace("epochs = 1", "batch_size = 8\nbatch-size = 9"))


def test_seeds_by_name(tmp_path):
    assert load(tmp_path, GOOD.replace("seeds = 2", "seeds = [3, 5]")).seeds == (3, 5)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds = 2", "seeds = 0", "seeds must be a number from 1 to 10000"),
        ("seeds = 2", "seeds = 100000000000", "seeds must be a number from 1 to 10000"),
        ("seeds = 2", f"seeds = {'9' * 23}", "seeds must be a number from 1 to 10000"),
        ("seeds = 2", f"seeds = [{'9' * 23}]", "seed must be at least 0 and less than 2147483648"),
        ("seeds = 2", "seeds = 9000", "a suite must have at most 10000 trials; got 36000. Split it"),
        ("seeds = 2", f'seeds = 2\nname = "{"n" * 300}"', "name must be at most 100 letters"),
        (
            "epochs = 1",
            '"backbone.width" = 3',
            "backbone.width must be given once; got options.backbone.width and grid.",
        ),
        ("[0.5, 2]", '["2", 2]', "grid.backbone.width must hold different values; got '2' and 2. Drop one of the two."),
        ("[0.5, 2]", "[2.0, 2]", "grid.backbone.width must hold different values; got 2.0 and 2. Drop one of the two."),
        ("[0.5, 2]", "[2, 2]", "grid.backbone.width must hold different values; got 2 and 2. Drop one of the two."),
        ("[0.5, 2]", "[" * 3000 + "]" * 3000, "nets.toml must be TOML of a few levels"),
        ("seeds = 2", "sedes = 2", "Did you mean seeds?"),
        ("seeds = 2", 'seeds = 2\nname = "../x"', "name must be at most 100 letters"),
        ('"backbone.train"', '"backbone.trian"', "Did you mean backbone.train"),
        ("epochs = 1", "epochs = 1\nseed = 3", "options.seed must be left out"),
        ("epochs = 1", "epoch = 1", "Did you mean epochs?"),
        ("[0.5, 2]", "2", "grid.backbone.width must be a list"),
        ("[0.5, 2]", "[0.5, -2, -3]", "backbone.width must be greater than 0"),
        ('"vgg-tiny"', '"vgg-tyni"', "Did you mean vgg-tiny"),
        ("seeds = 2", "seeds = = 2", "nets.toml must be valid TOML; got Invalid value (at line 3, column 9)"),
    ],
)
def test_wrong_suites(tmp_path, old, new, said):
    with pytest.raises(UserError) as caught:
        load(tmp_path, GOOD.replace(old, new))
    assert said in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_a_suite(tmp_path):
    assert load(tmp_path, f"\ufeff{GOOD}") == load(tmp_path, GOOD)


def test_all_wrong_points_are_reported_once_each(tmp_path):
    with pytest.raises(UserError) as caught:
        load(tmp_path, GOOD.replace("[0.5, 2]", "[-2, -3]"))
    assert len(str(caught.value).splitlines()) == 2


def test_every_mistake_is_reported_at_once(tmp_path):
    text = 'experiment = "backbone.train"\nsedes = 2\nname = "a b"\nseeds = [true]\n[grid]\nepochs = [0]\nlr = 3\n'
    with pytest.raises(UserError) as caught:
        load(tmp_path, text + '[options]\nbatch_size = "many"\ndataset = "dijits"\nfoo = 1\n')
    problems = str(caught.value).splitlines()
    begun = [problem.partition(" must be")[0] for problem in problems]
    assert begun == ["suite key", "name", "seeds", "grid.lr", "option", "dataset", "epochs", "batch-size"]
    assert all("; got " in problem for problem in problems)


def test_an_edited_suite_keeps_its_name_and_another_one_does_not_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("engram.benchmarks.commands.run.drive", lambda *_: PlanOutcome())
    out, here, there = tmp_path / "runs", tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()

    def plan(folder: Path, text: str) -> dict:
        return plan_suite(load(folder, text), Planner(REGISTRY, out, DataSets(REGISTRY, out)))[1]

    def run(folder: Path, text: str) -> None:
        suite = load(folder, text)
        assert run_suite(suite, [], plan(folder, text), RunSetting(out=out, data_root=out, argv=[])).code == 0

    edited = GOOD.replace("epochs = 1", "epochs = 4")
    run(here, GOOD)
    with pytest.raises(UserError) as caught:
        plan(there, edited)
    assert f"got {there}/nets.toml. Give this one another with name" in str(caught.value)
    assert f"that of one suite here, {here}/nets.toml" in str(caught.value)
    assert plan(there, 'name = "mine"\n' + edited)["name"] == "mine"
    run(here, edited)
    assert read_json(out / "sweeps" / "nets" / "plan.json")["suite"] == edited
    run(there, edited)  # moved
    run(there, GOOD)  # and edited
    with pytest.raises(UserError, match="another"):
        run(here, edited)
    assert read_json(out / "sweeps" / "nets" / "plan.json")["suite"] == GOOD


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"suite must be a TOML file; got .*none\.toml"):
        load_suite(tmp_path / "none.toml", REGISTRY)


def test_the_suites_that_come_with_engram_are_valid():
    folder = Path(__file__).parents[2] / "benchmarks" / "suites"
    for path in folder.glob("*.toml"):
        suite = load_suite(path, REGISTRY)
        assert suite.points or suite.search
