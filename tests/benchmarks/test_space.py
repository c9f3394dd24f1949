"""What a search may try: draws by name, and what is said of wrong tables."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from engram.backbone.errors import UserError
from engram.backbone.registry import Registry
from engram.benchmarks.planning.space import Choice, Range, draw, probes, read_space
from engram.benchmarks.planning.suite import load_suite

REGISTRY = Registry.discover()
ENDS = st.floats(1e-6, 1e6)
WHOLE = st.integers(1, 1000)


def _range(ends):
    (low, high), log = ends
    return {"low": min(low, high), "high": max(low, high), "log": log}


AXES = st.one_of(
    st.lists(st.integers(), min_size=1, max_size=5, unique=True),
    st.tuples(st.lists(ENDS, min_size=2, max_size=2, unique=True), st.booleans()).map(_range),
    st.tuples(st.lists(WHOLE, min_size=2, max_size=2, unique=True), st.booleans()).map(_range),
)
TABLES = st.dictionaries(st.sampled_from("abcdefgh"), AXES, min_size=1)


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])  # of the first example, on a busy machine
@given(TABLES, AXES, st.integers(0, 2**31), st.integers(0, 10_000))
def test_an_option_more_moves_no_other(table, more, seed, number):
    before = draw(read_space(table, []), seed, number)
    first = draw(read_space({"first": more, **table}, []), seed, number)
    last = draw(read_space({**table, "last": more}, []), seed, number)
    assert before == {name: first[name] for name in before} == {name: last[name] for name in before}


@given(AXES, st.floats(0, 1, exclude_max=True))
def test_what_is_drawn_lies_in_the_distribution(table, u):
    problems: list[str] = []
    (axis,) = read_space({"a": table}, problems)
    value = axis.values.at(u)
    assert not problems
    if isinstance(axis.values, Choice):
        assert value in axis.values.values
    else:
        assert axis.values.low <= value <= axis.values.high
        assert isinstance(value, int) == axis.values.whole


@pytest.mark.parametrize("log", [False, True])
def test_ranges_are_drawn_evenly(log):
    values = [draw(read_space({"a": {"low": 0.01, "high": 10.0, "log": log}}, []), 0, n)["a"] for n in range(2000)]
    even = stats.loguniform(0.01, 10.0) if log else stats.uniform(0.01, 9.99)
    assert stats.kstest(values, even.cdf).pvalue > 0.01


def test_whole_numbers_are_all_as_likely():
    held = Range(1, 6)
    counts = [[held.at(n / 6000) for n in range(6000)].count(value) for value in range(1, 7)]
    assert counts == [1000] * 6
    ratios = Range(1, 64, log=True)
    shares = [sum(ratios.at((n + 0.5) / 6000) == value for n in range(6000)) / 6000 for value in (1, 8)]
    whole = math.log(64.5 / 0.5)
    assert shares == pytest.approx([math.log(3) / whole, math.log(8.5 / 7.5) / whole], abs=1e-3)


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_options_that_count_with_others_alone(number):
    table = {"b": {"low": 0.0, "high": 1.0, "when": {"a": "x"}}, "a": ["x", "y"]}
    drawn = draw(read_space(table, []), 0, number)
    assert ("b" in drawn) == (drawn["a"] == "x")


def test_probes_have_every_choice_and_both_ends():
    space = read_space({"a": ["x", "y", "z"], "b": {"low": 1, "high": 5}, "c": {"values": [7], "when": {"a": "z"}}}, [])
    found = list(probes(space))
    assert {point["a"] for point in found} == {"x", "y", "z"}
    assert {point["b"] for point in found if "b" in point} == {1, 5}
    assert {"a": "z", "c": 7} in found


SUITE = """
experiment = "backbone.train"
seeds = 2
[options]
dataset = "digits"
[search]
method = "random"
objective = "validation/accuracy"
trials = 8
[search.space]
lr = { low = 0.001, high = 0.1, log = true }
"backbone.width" = [0.5, 1.0]
"""


def load(tmp_path, text):
    path = tmp_path / "nets.toml"
    path.write_text(text)
    return load_suite(path, REGISTRY)


def test_a_suite_with_a_search(tmp_path):
    suite = load(tmp_path, SUITE)
    assert (suite.points, list(suite.axes), suite.seeds) == ((), ["lr", "backbone.width"], (0, 1))
    assert suite.search is not None
    assert (suite.search.shares, suite.search.trials) == ((), 8)
    nested = SUITE.replace('"backbone.width" = [0.5, 1.0]', "[search.space.backbone_options]\nwidth = [0.5, 1.0]")
    assert load(tmp_path, nested).search == suite.search
    halving = load(tmp_path, SUITE.replace('"random"', '"halving"\nfactor = 2\nrungs = 3')).search
    assert halving is not None
    assert halving.shares == (0.125, 0.25, 0.5)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"random"', '"randm"', "search.method must be one of random, tpe, halving; got randm."),
        ("trials = 8", "", "search must have an end; got none. Write: trials = 40"),
        ("trials = 8", "trials = 1", "search.trials must be a whole number from 2 (every proposal"),
        ("trials = 8", "hours = 0", "search.hours must be a number above 0; got 0."),
        ("trials = 8", "trials = 8\nrungs = 2", "search.rungs must be left out for random"),
        ('"random"', '"halving"\nfactor = 1', "search.factor must be a whole number of at least 2; got 1."),
        ("trials = 8", "trials = 8\nhour = 2", "search.hour must be a key of [search]; got hour. Did you mean hours?"),
        (
            '"validation/accuracy"',
            '"test/accuracy"',
            "by which nothing may be chosen; got test/accuracy. Use validation/",
        ),
        ('"validation/accuracy"', '"accuracy"', "must be a metric of the experiment; got accuracy."),
        ('"validation/accuracy"', "3", "search.objective must be a metric or a list of them; got 3."),
        (
            'dataset = "digits"',
            'dataset = "digits"\nlr = 0.1',
            "lr must be given once; got options.lr and search.space.lr.",
        ),
        ('dataset = "digits"', "validation = 0", "validation must be more than 0 for a search"),
        ("[0.5, 1.0]", "[0.5, 0.5]", "search.space.backbone.width must hold different values; got 0.5 twice."),
        ("[0.5, 1.0]", "[0.5, -1.0]", "width must be greater than 0"),
        ("[0.5, 1.0]", "[]", "search.space.backbone.width must be a list of values; got"),
        ("low = 0.001", "low = 1", "search.space.lr must reach from a number to a higher one; got 1 and 0.1."),
        ("low = 0.001", "low = 0", "search.space.lr must begin above 0 to be drawn by ratio; got 0, log = True."),
        ("low = 0.001", 'when = { "backbone.width" = 2.0 }, low = 0.001', "lr.when must name values of a list; got"),
        ("low = 0.001", "when = { momentum = 1 }, low = 0.001", "lr.when must hang on options of the space"),
        ("low = 0.001", "when = 1, low = 0.001", "lr.when must be a table of options and values; got 1."),
        ("{ low = 0.001, high = 0.1, log = true }", "0.1", "search.space.lr must be a distribution; got 0.1."),
        ("lr =", "seed =", "search.space.seed must be left out"),
        ("lr =", '"backbone_options.width" =', "backbone.width must be given once"),
        ("[search]", "[grid]\nlr = [1]\n[search]", "a suite must have a grid or a search; got both."),
        ("lr =", "depth =", "option must be one of those offered; got depth."),
        ("lr = { low = 0.001, high = 0.1,", "epochs = { low = 1.5, high = 9,", "epochs must be a whole number"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, old, new, said):
    assert old in SUITE
    with pytest.raises(UserError) as caught:
        load(tmp_path, SUITE.replace(old, new, 1))
    assert said in str(caught.value)


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    text = SUITE.replace('"random"', '"tpa"').replace("trials = 8", "trials = 0").replace("[0.5, 1.0]", '["wide"]')
    with pytest.raises(UserError) as caught:
        load(tmp_path, text.replace('"validation/accuracy"', '["validation/accuracy", "test/loss"]'))
    said = str(caught.value).splitlines()
    assert len(said) == 4
    several = SUITE.replace('"random"', '"halving"').replace(
        '"validation/accuracy"', '["validation/accuracy", "parameters"]'
    )
    with pytest.raises(UserError, match=r"search\.objective must be one for halving"):
        load(tmp_path, several)
