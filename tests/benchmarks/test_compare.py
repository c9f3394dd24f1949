"""Grouping, pairing, gates, and what compare says about trials that are not there."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from engram.backbone.errors import UserError
from engram.benchmarks.cli import main
from engram.benchmarks.compare.comparison import compare_outcomes
from engram.benchmarks.compare.gate import parse
from engram.benchmarks.compare.terminal import render as print_comparison
from engram.benchmarks.compare.wanted import Wanted
from engram.benchmarks.comparing import compare
from engram.benchmarks.records.outcomes import Outcome, Outcomes


def outcomes(scores, axes=("net",), **extra):
    """Trials from {(axis values..., seed): score}; a score of None is a trial that failed."""
    trials = []
    for (*cell, seed), score in scores.items():
        options = {**dict(zip(axes, cell, strict=True)), "seed": seed}
        metrics = {} if score is None else {"score": score, **extra}
        trials.append(Outcome(f"{cell}{seed}", "an.experiment", options, metrics, "done" if metrics else "failed", 1.0))
    return Outcomes("s", tuple(axes), trials)


def test_groups_best_first_with_mean_interval_and_pairs(folders):
    trials = folders.sweep()
    found = compare(folders.out, "nets")
    assert (found.metric, found.direction, found.by) == ("test/accuracy", "max", ("backbone",))
    assert [group.label for group in found.groups] == ["lenet5", "mlp"]
    assert found.baseline == "lenet5"
    for group in found.groups:
        told = [json.loads((folders.out / "trials" / trial / "result.json").read_text()) for trial in trials]
        scores = [one["metrics"]["test/accuracy"] for one in told if one["config"]["backbone"] == group.label]
        assert group.interval.mean == pytest.approx(sum(scores) / 3)
        assert (group.statistic("min"), group.statistic("max")) == (min(scores), max(scores))
    (pair,) = found.against_best()
    assert (pair.group, pair.against, pair.paired.p, pair.verdict) == ("mlp", "lenet5", 0.25, "too few seeds (3 of 6)")
    assert found.oracle
    assert "oracle selection" in found.title


def test_lower_is_better_where_the_experiment_says_so(folders):
    folders.sweep()
    found = compare(folders.out, "nets", wanted=Wanted(metric="test/loss"))
    assert found.direction == "min"
    assert not compare(folders.out, "nets", wanted=Wanted(metric="parameters")).oracle


def test_no_interval_leaves_what_is_possible():
    """Two seeds of an experiment that says what its metrics are."""
    scores = {"joint": ((0.97, 0.0), (0.99, 0.01)), "er": ((0.1, 0.8), (0.9, -0.1))}
    trials = [
        Outcome(f"{name}{seed}", "continual.stream", {"strategies": name, "seed": seed}, metrics, "done", 1.0)
        for name, both in scores.items()
        for seed, (accuracy, forgetting) in enumerate(both)
        for metrics in [{"test/average_accuracy": accuracy, "test/forgetting": forgetting, "other": accuracy}]
    ]
    sweep = Outcomes("s", ("strategies",), trials)
    for metric, low, high in (("average_accuracy", 0, 1), ("forgetting", -1, 1)):
        found = compare_outcomes(sweep, Wanted(metric=metric))
        assert all(low <= group.interval.low < group.interval.high <= high for group in found.groups)
        (pair,) = found.pairs
        assert low - high <= pair.paired.difference.low < pair.paired.difference.high <= high - low
    other = compare_outcomes(sweep, Wanted(metric="other"))  # nobody has said what it is
    assert other.groups[0].interval.high > 1 and "what is better is not declared" in other.title and not other.oracle
    assert compare_outcomes(sweep, Wanted(metric="forgetting")).oracle  # an older name of a score on test images
    assert compare_outcomes(sweep, Wanted(fail_if="high average_accuracy > 1")).exit_code == 0


def test_a_clear_difference_with_enough_seeds():
    scores = {("a", seed): 0.9 + seed / 1000 for seed in range(7)} | {
        ("b", seed): 0.8 + seed / 900 for seed in range(7)
    }
    (pair,) = compare_outcomes(outcomes(scores)).against_best()
    assert pair.verdict == "differs"
    assert pair.p == pytest.approx(2 / 2**7)


def test_holm_counts_all_pairs():
    scores = {
        (net, seed): level + seed / 1000 for net, level in (("a", 0.9), ("b", 0.8), ("c", 0.7)) for seed in range(6)
    }
    found = compare_outcomes(outcomes(scores))
    assert len(found.pairs) == 3
    assert len(found.against_best()) == 2
    assert [pair.p for pair in found.pairs] == [pytest.approx(3 * 2 / 2**6)] * 3
    assert {pair.verdict for pair in found.pairs} == {"too few seeds (6 of 7)"}


def test_unfinished_trials_are_listed_never_dropped(folders):
    states = {("mlp", 1): "failed", ("mlp", 2): "interrupted", ("lenet5", 2): "new"}
    folders.sweep(states=states)
    found = compare(folders.out, "nets")
    assert sorted(one.status for one in found.absent) == ["failed", "planned", "unfinished"]
    assert "loss must be finite" in next(one.why for one in found.absent if one.status == "failed")
    assert [(group.label, group.interval.n) for group in found.groups] == [("lenet5", 2), ("mlp", 1)]
    assert found.against_best()[0].paired.seeds == (0,)
    text = render(found)
    assert "none (n = 1)" in text
    for one in found.absent:
        assert one.trial in text


def test_other_options_are_averaged_within_a_seed():
    scores = {
        ("a", 1, 0): 0.1,
        ("a", 2, 0): 0.3,
        ("a", 1, 1): 0.5,
        ("a", 2, 1): 0.7,
        ("b", 1, 0): 0.2,
        ("b", 2, 0): 0.2,
        ("b", 1, 1): 0.9,
        ("b", 2, 1): None,  # the seed is incomplete: the mean of the rest would be of something else
    }
    found = compare_outcomes(outcomes(scores, axes=("net", "width")), Wanted(by="net"))
    assert {group.label: dict(group.scores) for group in found.groups} == {
        "a": {0: pytest.approx(0.2), 1: pytest.approx(0.6)},
        "b": {0: pytest.approx(0.2)},
    }
    assert len(found.absent) == 1
    both = compare_outcomes(outcomes(scores, axes=("net", "width")))
    assert both.groups[0].label == "net=b width=1"


def test_several_trials_for_one_cell_and_seed_are_refused():
    found = outcomes({("a", 0): 0.5, ("b", 0): 0.4})
    twin = replace(found.trials[0], trial="twin", options={**found.trials[0].options, "epochs": 4})
    with pytest.raises(UserError, match=r"got \['a'\]0 and twin for net a, seed 0 \(epochs None and 4 in them\)"):
        compare_outcomes(replace(found, trials=[*found.trials, twin]))


def test_a_metric_that_is_not_a_number_comes_last():
    found = compare_outcomes(outcomes({("a", 0): float("nan"), ("b", 0): 0.5}))
    assert [group.label for group in found.groups] == ["b", "a"]
    json.dumps(found.to_json(), allow_nan=False)


def test_json_is_plain(folders):
    folders.sweep()
    found = compare(folders.out, "nets", wanted=Wanted(fail_if="test/accuracy < 0.5")).to_json()
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text)["tables"]["groups"][0]["backbone"] == "lenet5"
    assert set(found["metrics"]) == {"lenet5/test/accuracy", "mlp/test/accuracy"}
    assert found["gate"]["tripped"] is False


@pytest.mark.parametrize(
    ("condition", "tripped"),
    [
        ("test/accuracy < 0.5", False),
        ("test/accuracy < 0.95", True),
        ("test/accuracy of lenet5 < 0.95", False),
        ("test/accuracy of mlp<0.95", True),
        ("mean test/accuracy of mlp >= 9.5e-1", False),
        ("low test/accuracy of lenet5 < 0.9999", True),
        ("n test/accuracy < 3", False),
        ("n test/accuracy != 3", False),
        ("max test/loss > .2", False),
        ("min test/accuracy of lenet5 <= 1", True),
    ],
)
def test_gates(folders, condition, tripped):
    folders.sweep()
    found = compare(folders.out, "nets", wanted=Wanted(fail_if=condition))
    assert found.gate is not None
    assert found.gate.tripped is tripped
    assert found.exit_code == (3 if tripped else 0)
    assert condition in render(found)


def test_a_gate_on_what_nobody_measured_trips(folders):
    folders.sweep(states={("mlp", seed): "failed" for seed in range(3)})
    assert compare(folders.out, "nets", wanted=Wanted(fail_if="test/accuracy of mlp < 0.1")).exit_code == 3
    assert compare(folders.out, "nets", wanted=Wanted(fail_if="test/accuracy of lenet5 < 0.1")).exit_code == 0
    alone = Outcomes("s", (), [Outcome("t", "x", {"seed": 0}, {"score": 0.5}, "done")])
    assert compare_outcomes(alone, Wanted(fail_if="low score < 0")).exit_code == 3


@pytest.mark.parametrize(
    "text", ["", "0.97", "test/accuracy", "test/accuracy < high", "a < 1; import os", "< 1", "a <> 1"]
)
def test_what_is_no_gate_is_refused(text):
    with pytest.raises(UserError, match="--fail-if must be"):
        parse(text)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "netz"}, "sweep must be one that was run here; got 'netz'. Did you mean nets"),
        ({"metric": "test/acuracy"}, "got 'test/acuracy'. Did you mean test/accuracy"),
        ({"by": "backbon"}, "--by must be an option of the trials; got 'backbon'. Did you mean backbone"),
        ({"fail_if": "test/acc < 1"}, "got 'test/acc'. Did you mean test/accuracy"),
        ({"fail_if": "test/accuracy of lenet < 1"}, "got 'lenet'. Did you mean lenet5"),
        ({"tracking_uri": "sqlite:////nowhere/mlflow.db"}, "--tracking-uri must be a store that exists"),
    ],
)
def test_mistakes_are_told_with_the_nearest_name(folders, options, said):
    folders.sweep()
    options = dict(options)
    with pytest.raises(UserError) as caught:
        name, uri = options.pop("name", "nets"), options.pop("tracking_uri", None)
        compare(folders.out, name, wanted=Wanted(**options), tracking_uri=uri)
    assert said in str(caught.value)


def test_a_sweep_without_results_says_so(folders):
    folders.sweep(states={(net, seed): "new" for net in ("lenet5", "mlp") for seed in range(3)})
    with pytest.raises(UserError, match="finished trials"):
        compare(folders.out, "nets")


def test_by_takes_the_flags_spelling(folders):
    folders.sweep()
    assert compare(folders.out, "nets", wanted=Wanted(by="--backbone")).by == ("backbone",)
    assert [group.label for group in compare(folders.out, "nets", wanted=Wanted(by="dataset")).groups] == ["digits"]


def test_markup_in_names_is_shown_as_it_is():
    found = compare_outcomes(outcomes({("[red]a[/red]", 0): 0.5, ("b", 0): 0.4}))
    assert "[red]a[/red]" in render(found)


def test_groups_are_told_apart_in_80_columns():
    names = [f"backbone=vgg-tiny strategies=continual.{name} buffer=500" for name in ("er", "er-ace", "derpp")]
    found = compare_outcomes(outcomes({(name, seed): 0.5 + seed / 10 for name in names for seed in range(3)}))
    text = render(found, width=80, force_terminal=True, color_system=None)
    assert max(map(len, text.splitlines())) <= 80
    shown = "".join(line[2:].split("  ")[0] for line in text.splitlines()).replace(" ", "")
    assert all(name.replace(" ", "") in shown for name in names)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert names[0] in render(found, width=40)  # piped to somewhere: a line for each


def render(found, width=200, **terminal):
    console = Console(file=io.StringIO(), width=width, **terminal)
    print_comparison(found, console)
    return console.file.getvalue()


def test_an_encoding_without_a_sign_costs_the_sign_alone(folders, monkeypatch):
    trials = folders.sweep()
    for trial in trials:
        config = folders.out / "trials" / trial / "config.json"
        config.write_text(config.read_text().replace("digits", "folder:caf\N{LATIN SMALL LETTER E WITH ACUTE}"))
    for words in (["compare", "nets"], ["status"], ["compare", "nets", "--by", "dataset"]):
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
        assert main([*words, "--out", str(folders.out)]) == 0
        sys.stdout.flush()
        text = sys.stdout.buffer.getvalue().decode("ascii")
        assert "\\u2212" not in text and "nets" in text
