"""Any set of trials, over tasks, against a stored baseline, written into files."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from engram.backbone.errors import UserError
from engram.benchmarks.cli import main
from engram.benchmarks.compare.comparison import compare_outcomes
from engram.benchmarks.compare.export import FORMS, tex
from engram.benchmarks.compare.sheets import notes
from engram.benchmarks.compare.wanted import Wanted
from engram.benchmarks.comparing import compare
from engram.benchmarks.records.outcomes import Outcome, Outcomes


def run(folders, capsys, *words):
    code = main([*words, "--out", str(folders.out)])
    said = capsys.readouterr()
    return code, said.out, said.err


def outcomes(scores, axes, experiment="backbone.train", metric="test/accuracy"):
    """Trials from {(axis values..., seed): score}."""
    trials = []
    for (*cell, seed), score in scores.items():
        options = {**dict(zip(axes, cell, strict=True)), "seed": seed}
        trials.append(Outcome(f"{cell}{seed}", experiment, options, {metric: score}, "done", 1.0))
    return Outcomes("s", tuple(axes), trials)


def many(seeds=4, tasks=("digits", "glyphs", "mnist"), nets=("mlp", "lenet5", "conv4")):
    draw = np.random.default_rng(0)
    scores = {
        (net, task, seed): 0.6 + 0.1 * nets.index(net) + 0.02 * tasks.index(task) + 0.01 * draw.normal()
        for net in nets
        for task in tasks
        for seed in range(seeds)
    }
    return outcomes(scores, ("backbone", "dataset"))


# What is compared


def test_two_sweeps_side_by_side(folders):
    folders.sweep("one", backbones=("lenet5", "mlp"))
    folders.sweep("two", backbones=("lenet5", "mlp"), options={"lr": 0.5})
    found = compare(folders.out, "one", "two")
    assert found.sweep == "one + two" and found.by == ("sweep", "backbone") and len(found.groups) == 4
    assert {group.interval.n for group in found.groups} == {3}
    by_net = compare(folders.out, "one", "two", wanted=Wanted(by="backbone"))
    assert [group.label for group in by_net.groups] == ["lenet5", "mlp"]
    for group in by_net.groups:
        both = [each for each in found.groups if each.options["backbone"] == group.label]
        for seed, score in group.scores.items():
            assert score == pytest.approx(sum(each.scores[seed] for each in both) / 2)
    by_sweep = compare(folders.out, "one", "two", wanted=Wanted(by="sweep"))
    assert {group.label for group in by_sweep.groups} == {"one", "two"}


def test_trials_by_id_by_folder_and_a_sweep_by_its_folder(folders):
    trials = [folders.trial(net, seed) for net in ("lenet5", "mlp") for seed in range(2)]
    found = compare(
        folders.out, trials[0][:8], trials[1], str(folders.out / "trials" / trials[2]), trials[3], trials[3]
    )
    assert found.by == ("backbone",) and [group.interval.n for group in found.groups] == [2, 2]
    folders.sweep("nets", backbones=("conv4",))
    mixed = compare(folders.out, str(folders.out / "sweeps" / "nets"), trials[0])
    assert sorted(group.label for group in mixed.groups) == ["sweep=- backbone=lenet5", "sweep=nets backbone=conv4"]
    alone = compare(folders.out, trials[0])
    assert (alone.sweep, alone.by, len(alone.groups)) == (trials[0], (), 1)


def test_a_trial_in_two_sweeps_counts_in_both_and_once_in_each(folders):
    folders.sweep("one", backbones=("lenet5",))
    folders.sweep("two", backbones=("lenet5", "mlp"))
    found = compare(folders.out, "one", "two", "one")
    assert {group.label: group.interval.n for group in found.groups} == {
        "sweep=one backbone=lenet5": 3,
        "sweep=two backbone=lenet5": 3,
        "sweep=two backbone=mlp": 3,
    }


def test_only_some(folders):
    folders.sweep(backbones=("lenet5", "mlp", "conv4"))
    found = compare(folders.out, "nets", wanted=Wanted(only=("backbone=mlp", "lenet5")))
    assert sorted(group.label for group in found.groups) == ["lenet5", "mlp"]
    one = compare(folders.out, "nets", wanted=Wanted(only=("--backbone=mlp",)))
    assert one.by == () and one.groups[0].interval.n == 3


def test_only_takes_lists_as_they_are_written():
    scores = {(name, seed): 0.5 for name in ("a", "b") for seed in range(2)}
    found = outcomes(scores, ("strategies",))
    lists = {"a": ["er", "derpp"], "b": ["er"]}
    listed = [replace(t, options={**t.options, "strategies": lists[t.options["strategies"]]}) for t in found.trials]
    kept = compare_outcomes(replace(found, trials=listed), Wanted(only=("strategies=er", "derpp")))
    assert [group.interval.n for group in kept.groups] == [2]


@pytest.mark.parametrize(
    ("only", "said"),
    [
        (("backbon=mlp",), "--only must be about an option of the trials; got backbon. Did you mean backbone"),
        (("backbone=mlq",), "--only must be a value of backbone that trials have; got backbone=mlq. Did you mean mlp"),
        (("mlp",), "--only must be OPTION=VALUE; got mlp"),
    ],
)
def test_what_nothing_is_left_of(folders, only, said):
    folders.sweep()
    with pytest.raises(UserError) as caught:
        compare(folders.out, "nets", wanted=Wanted(only=only))
    assert said in str(caught.value)


def test_only_compares_numbers_and_not_their_spellings(folders):
    folders.sweep()
    for text, count in (("lr=0.050", 6), ("lr=5e-2", 6), ("seed=01", 2), ("epochs=4.0", 6), ("backbone.width=1", 6)):
        found = compare(folders.out, "nets", wanted=Wanted(only=(text,)))
        assert sum(group.interval.n for group in found.groups) == count, text
    assert len(compare(folders.out, "nets", wanted=Wanted(only=("seed=0.0", "2"))).groups[0].scores) == 2


def test_all_that_is_wrong_with_a_comparison_is_said_at_once(folders):
    folders.sweep()
    wrong = Wanted(
        only=("backbone=mlq", "lenat5", "speed=1", "seed=9"),
        metric="test/acuracy",
        by="backbon,lr,nosuch",
        tasks="sed",
        fail_if="tset/loss < 1; test/accuracy < 0.5; what/is < 3",
    )
    with pytest.raises(UserError) as caught:
        compare(folders.out, "nets", wanted=wrong)
    assert [line.partition("; got ")[2].partition(". ")[0] for line in str(caught.value).splitlines()] == [
        "speed",
        "backbone=mlq",
        "backbone=lenat5",
        "seed=9",
        "'test/acuracy'",
        "'tset/loss'",
        "'what/is'",
        "'sed'",
        "'backbon'",
        "'nosuch'",
    ]


def test_every_condition_that_cannot_be_judged_is_said(folders):
    folders.sweep()
    gate = "test/accuracy of vgg < 1; test/accuracy < 0.1; worse test/accuracy; n test/loss of mpl > 3"
    with pytest.raises(UserError) as caught:
        compare(folders.out, "nets", wanted=Wanted(fail_if=gate))
    first, second, third = str(caught.value).splitlines()
    assert "'vgg'" in first and "no baseline" in second and "got 'mpl'. Did you mean mlp" in third


def test_an_unfinished_trial_by_itself_is_refused(folders):
    trial = folders.trial(state="failed")
    with pytest.raises(UserError, match="compare must be a finished trial; got"):
        compare(folders.out, trial)


# Over tasks


def test_over_tasks_groups_have_ranks_and_probabilities():
    found = compare_outcomes(many(), Wanted(tasks="dataset"))
    assert found.by == ("backbone",) and [group.label for group in found.groups] == ["conv4", "lenet5", "mlp"]
    tasks = found.tasks
    assert tasks.names == ("digits", "glyphs", "mnist") and not tasks.left_out
    assert [each.rank for each in tasks.standings] == [1, 2, 3]
    assert tasks.standings[0].behind is None and tasks.standings[2].behind.mean == 1
    runs = np.concatenate(tasks.scores["conv4"])
    assert runs.shape == (12,) and tasks.standings[0].typical.mean == pytest.approx(np.sort(runs)[3:9].mean())
    assert tasks.ranks.p == pytest.approx(np.exp(-3))  # chi-square of 6 with 2 degrees of freedom
    assert tasks.alike() == [["conv4", "lenet5"], ["lenet5", "mlp"]]
    said = " ".join(notes(found))
    assert "Friedman p = 0.0498" in said and "no difference of ranks shown: conv4, lenet5" in said
    json.dumps(found.to_json(), allow_nan=False)


def test_where_less_is_better_the_least_ranks_first():
    scores = {(net, task, seed): 1.0 + (net == "b") for net in "ab" for task in "xy" for seed in range(3)}
    held = outcomes(scores, ("backbone", "dataset"), metric="test/loss")
    found = compare_outcomes(held, Wanted(tasks="dataset", metric="test/loss"))
    assert [(each.group, each.rank) for each in found.tasks.standings] == [("a", 1), ("b", 2)]
    assert found.tasks.standings[1].behind.mean == 1
    assert {name: list(each) for name, each in found.tasks.ratios().items()} == {"a": [1, 1], "b": [2, 2]}
    at, profiles = found.tasks.profiles()
    assert profiles["a"][0][0] == 1 and profiles["b"][0][0] == 0 and profiles["b"][0][-1] == 1
    assert at[0] == 1 and at[-1] == 2


def test_a_group_without_a_task_is_left_out_and_said():
    held = many()
    trials = [t for t in held.trials if not (t.options["backbone"] == "mlp" and t.options["dataset"] == "mnist")]
    found = compare_outcomes(replace(held, trials=trials), Wanted(tasks="dataset"))
    assert found.tasks.left_out == ["mlp"] and len(found.tasks.standings) == 2
    assert "without a score on every task" in " ".join(notes(found))
    alone = compare_outcomes(held, Wanted(tasks="dataset", only=("backbone=mlp",)))
    assert alone.tasks.ranks is None and "ranks need two groups" in " ".join(notes(alone))


def test_one_seed_has_no_interval():
    found = compare_outcomes(many(seeds=1), Wanted(tasks="dataset"))
    assert all(each.typical.low is None for each in found.tasks.standings)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted(tasks="datasets"), "--tasks must be an option of the trials; got 'datasets'. Did you mean dataset"),
        (
            Wanted(tasks="dataset", only=("dataset=mnist",)),
            "--tasks must be an option with several values; got dataset",
        ),
        (Wanted(tasks="dataset", by="dataset"), "--tasks must be an option that makes no groups; got dataset"),
    ],
)
def test_tasks_that_are_none(wanted, said):
    with pytest.raises(UserError) as caught:
        compare_outcomes(many(), wanted)
    assert said in str(caught.value)


# Gates


def shifted(by, seeds=7):
    scores = {("mlp", seed): 0.9 + seed / 1000 + by * (1 + seed / 50) for seed in range(seeds)}
    return outcomes({**scores, ("conv4", 0): 0.8}, ("backbone",))


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "baseline.json"
    path.write_text(FORMS[".json"](compare_outcomes(shifted(0.0))))
    return path


@pytest.mark.parametrize(
    ("change", "condition", "tripped"),
    [
        (-0.02, "drop test/accuracy > 0.01", ["mlp"]),
        (-0.005, "drop test/accuracy > 0.01", []),
        (0.02, "drop test/accuracy of mlp > 0.01", []),
        (0.02, "rise test/accuracy > 0.01", ["mlp"]),
        (-0.02, "worse test/accuracy of mlp", ["mlp"]),
        (0.02, "worse test/accuracy of mlp", []),
        (0.0, "worse test/accuracy", []),  # one seed that has not changed at all
        (-0.02, "test/accuracy of mlp < 0.5; drop test/accuracy of mlp > 0.01", ["mlp"]),
    ],
)
def test_gates_against_a_baseline(stored, change, condition, tripped):
    found = compare_outcomes(shifted(change), Wanted(fail_if=condition, baseline=stored))
    assert [check.group for check in found.gate.checks if check.tripped] == tripped
    assert found.exit_code == (3 if tripped else 0)


def test_too_few_seeds_prove_nothing_good(stored):
    found = compare_outcomes(shifted(-0.02, seeds=3), Wanted(fail_if="worse test/accuracy of mlp", baseline=stored))
    assert found.exit_code == 3 and "too few seeds (3 of 6)" in found.gate.reasons[0]


def test_a_group_that_is_gone_trips_and_a_new_one_does_not(stored):
    now = shifted(0.0)
    gone = replace(now, trials=[trial for trial in now.trials if trial.options["backbone"] == "mlp"])
    for condition in ("drop test/accuracy > 0.5", "worse test/accuracy"):
        checks = compare_outcomes(gone, Wanted(fail_if=condition, baseline=stored)).gate.checks
        assert [check.group for check in checks if check.tripped] == ["conv4"]
        new = replace(
            now, trials=[*now.trials, replace(now.trials[0], trial="x", options={"backbone": "vgg", "seed": 0})]
        )
        assert "vgg" not in {
            each.group for each in compare_outcomes(new, Wanted(fail_if=condition, baseline=stored)).gate.checks
        }


@pytest.mark.parametrize(
    ("change", "wanted", "said"),
    [
        ({}, {"fail_if": "worse test/accuracy"}, "--fail-if must be without drop, rise and worse where there is no"),
        ({"by": ["lr"]}, {"fail_if": "drop test/accuracy > 0"}, "--baseline must be about groups by backbone; got"),
        (
            {"scores": {}},
            {"fail_if": "drop test/accuracy > 0"},
            "--baseline must be a comparison by test/accuracy; got none",
        ),
        (
            {"scores": 3},
            {"fail_if": "drop test/accuracy > 0"},
            "--baseline must be a comparison as compare --to FILE.json",
        ),
        ({}, {"fail_if": "drop test/accuracy of vgg > 0"}, "--fail-if's group must be one of the table; got 'vgg'"),
    ],
)
def test_baselines_that_cannot_be(stored, change, wanted, said):
    stored.write_text(json.dumps({**json.loads(stored.read_text()), **change}))
    baseline = None if "without drop" in said else stored
    with pytest.raises(UserError) as caught:
        compare_outcomes(shifted(0.0), Wanted(**wanted, baseline=baseline))
    assert said in str(caught.value)


def test_a_baseline_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="--baseline must be a file that can be read"):
        compare_outcomes(shifted(0.0), Wanted(fail_if="drop test/accuracy > 0", baseline=tmp_path / "none.json"))


def test_worse_needs_to_know_what_is_better(tmp_path):
    held = outcomes({("a", seed): 0.5 for seed in range(6)}, ("net",), experiment="unknown", metric="score")
    path = tmp_path / "b.json"
    path.write_text(FORMS[".json"](compare_outcomes(held)))
    with pytest.raises(UserError, match="must be about a metric that says what is better; got score"):
        compare_outcomes(held, Wanted(fail_if="worse score", baseline=path))


# Files


def test_files_of_every_form_from_the_command_line(folders, tmp_path, capsys):
    folders.sweep()
    gate = "test/accuracy of mlp < 0.95; n test/accuracy < 3"
    for suffix in FORMS:
        code, out, _ = run(folders, capsys, "compare", "nets", "--to", str(tmp_path / f"c{suffix}"), "--fail-if", gate)
        assert code == 3 and "mean test/accuracy of mlp is 0.9" in out
    rows = list(csv.DictReader(io.StringIO((tmp_path / "c.csv").read_text())))
    assert [row["group"] for row in rows] == ["lenet5", "mlp"] and float(rows[0]["mean"]) > 0.95 and rows[0]["n"] == "3"
    cases = ET.parse(tmp_path / "c.xml").getroot()
    assert cases.attrib == {"tests": "3", "failures": "1"}
    assert [case.get("name") for case in cases.iter("testcase") if case.find("failure") is not None] == [
        "mlp: test/accuracy of mlp < 0.95"
    ]
    text = (tmp_path / "c.md").read_text()
    assert "| backbone | mean" in text and "Gate failed" in text and "oracle selection" in text
    assert json.loads((tmp_path / "c.json").read_text())["scores"]["test/accuracy"]["mlp"].keys() == {"0", "1", "2"}
    table = (tmp_path / "c.tex").read_text()
    assert table.count(r"\begin{tabular}") == table.count(r"\end{tabular}") == 2 and r"95 \% interval" in table
    assert all(line.count("&") == 6 for line in table.split(r"\end{tabular}")[0].splitlines() if line.endswith(r"\\"))


def test_a_stored_comparison_is_the_baseline_of_the_next(folders, tmp_path, capsys):
    folders.sweep()
    path = str(tmp_path / "b.json")
    assert run(folders, capsys, "compare", "nets", "--to", path)[0] == 0
    words = ["compare", "nets", "--baseline", path, "--fail-if", "drop test/accuracy > 0.001; worse test/accuracy"]
    code, out, _ = run(folders, capsys, *words)
    assert code == 0 and out.rstrip().endswith(": passed")
    for result in folders.out.glob("trials/*/result.json"):
        told = json.loads(result.read_text())
        folders.json(
            result, {**told, "metrics": {**told["metrics"], "test/accuracy": told["metrics"]["test/accuracy"] - 0.01}}
        )
    code, out, _ = run(folders, capsys, *words)
    assert code == 3 and "drop test/accuracy of lenet5 is 0.01" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "x.pdf"], "--to must be a file that ends in .csv, .json, .md, .tex, .xml; got x.pdf"),
        (["--to", "x.xml"], "--to FILE.xml must be given with a gate"),
        (["--baseline", "b.json"], "--baseline must be given with a gate, which asks for it; got none"),
        (["--to", "/nowhere/x.md"], "--to must be a file that can be written; got /nowhere/x.md"),
        (["--fail-if", "what"], "--fail-if must be"),
        (["--to", "x.pdf", "--fail-if", "so; a < 1; what", "--only", "mlp", "lenet5"], "so\nwhat\nmlp\nlenet5\nx.pdf"),
    ],
)
def test_mistakes_on_the_command_line(folders, capsys, words, said):
    folders.sweep()
    code, _, err = run(folders, capsys, "compare", "nets", *words)
    several = said.split("\n")
    assert code == 2 and all(each in err for each in several) and err.count("must be") == len(several)


def test_signs_of_strangers_do_no_harm_in_any_form(tmp_path):
    evil = "a|b\\_$%&#{}~^<x>\x01\n\N{SNOWMAN}"
    found = compare_outcomes(
        outcomes({(evil, 0): 0.5, ("b", 0): float("nan")}, ("backbone",)), Wanted(fail_if="test/accuracy < 0.9")
    )
    for form, make in FORMS.items():
        text = make(found)
        assert "\N{SNOWMAN}" in text or form == ".json"
    ET.fromstring(FORMS[".xml"](found))
    assert json.loads(FORMS[".json"](found))["gate"]["tripped"]
    lines = [line for line in FORMS[".md"](found).splitlines() if line.startswith("| a")]
    assert lines and all("\\|" in line for line in lines)
    assert tex("a_b%&#{}$") == r"a\_b\%\&\#\{\}\$"
    assert "\x01" not in FORMS[".xml"](found)


def test_the_same_from_python(folders):
    import engram

    for net in ("mlp", "lenet5"):
        for name in ("digits", "glyphs"):
            for seed in range(2):
                folders.trial(net, seed, options={"dataset": name})
    trials = [folder.name for folder in (folders.out / "trials").iterdir()]
    found = engram.compare(*trials, by="backbone", tasks="dataset", out=folders.out)
    assert [row["group"] for row in found.tasks] == ["lenet5", "mlp"] and [row["rank"] for row in found.tasks] == [1, 2]
    assert "over tasks" in str(found) and found._repr_html_().count("<table") == 3
    assert len(engram.compare(*trials, out=folders.out).tasks) == 0
