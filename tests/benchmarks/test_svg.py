"""Charts of all the data that trials may hand over, the odd ones too."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.benchmarks.drawing.svg import (
    HEIGHT,
    WIDTH,
    Chart,
    Series,
    keys,
    legend,
    line_chart,
    linear_axis,
    log2_axis,
    tick_text,
)

ANY = st.floats(allow_nan=True, allow_infinity=True)


def drawn(chart):
    """The chart as a parsed tree: it must be well-formed, and hold no NaN."""
    text = line_chart(chart, "c")
    assert not re.search(r"\b(nan|inf)\b", re.sub(r"<(title|desc).*?</\1>", "", text))
    return ET.fromstring(text)


def chart(*points, **options):
    return Chart("a title", "x", "y", [Series(f"s{index}", line) for index, line in enumerate(points)], **options)


def find(tree, kind):
    return [element for element in tree.iter() if element.get("class", "").split(" ")[0] == kind]


def test_one_point_is_a_marker_without_a_line():
    tree = drawn(chart([(3, 0.5)]))
    assert len(find(tree, "dot")) == 1
    assert find(tree, "line") == []


def test_what_is_not_a_number_is_a_gap():
    tree = drawn(chart([(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.0), (4, math.inf), (5, 3.0), (6, 4.0)]))
    assert [len(line.get("points").split()) for line in find(tree, "line")] == [2, 2]
    assert len(find(tree, "dot")) == 5


@pytest.mark.parametrize("value", [0.0, 0.97, -3.0, 1e-300, 1e90])
def test_a_constant_series_has_an_axis(value):
    tree = drawn(chart([(0, value), (10, value)]))
    assert len(find(tree, "tick")) >= 3


def test_no_points_at_all():
    drawn(chart([]))
    drawn(chart())
    drawn(chart([(math.nan, math.nan)]))


@given(st.lists(st.tuples(ANY, ANY), max_size=20), st.sampled_from(["linear", "log2"]))
def test_whatever_comes_everything_drawn_is_inside(points, scale):
    tree = drawn(chart(points, x_scale=scale))
    for element in find(tree, "line"):
        for pair in element.get("points").split():
            x, y = map(float, pair.split(","))
            assert -1 <= x <= WIDTH + 1
            assert -1 <= y <= HEIGHT + 1


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=10))
def test_ticks_are_few_rising_and_told_apart(values):
    axis = linear_axis(values)
    assert 2 <= len(axis.ticks) <= 12
    assert list(axis.ticks) == sorted(set(axis.ticks))
    if max(map(abs, axis.ticks)) < 1e4:
        texts = [tick_text(tick, axis.ticks) for tick in axis.ticks]
        assert len(set(texts)) == len(texts)


def test_log2_axis_shows_powers_of_two_and_thins_them():
    assert log2_axis([1, 2, 64]).ticks == (1, 2, 4, 8, 16, 32, 64)
    assert len(log2_axis([1, 2**40]).ticks) <= 9
    assert log2_axis([3, 3]).ticks
    assert log2_axis([0, -1]).ticks


@pytest.mark.parametrize("high", [1, 64, 1000, 123456, 5e6])
def test_labels_on_the_x_axis_do_not_overlap(high):
    tree = drawn(chart([(0, 0), (high, 1)]))
    ticks = [(float(t.get("x")), t.text) for t in find(tree, "tick") if t.get("text-anchor") == "middle"]
    for (left, text), (right, other) in pairwise(ticks):
        assert right - left > 3.6 * (len(text) + len(other))  # half of each label, at 7.2 px a character


def test_fifty_series_stay_apart_in_a_legend_that_scrolls():
    many = chart(*[[(0, index), (1, index)] for index in range(50)])
    tree = drawn(many)
    looks = {(line.get("class"), line.get("stroke-dasharray")) for line in find(tree, "line")}
    assert len(looks) >= 32
    key = legend(keys(many))
    assert key.count("<li>") == 50
    assert 'class="legend long"' in key


def test_neighbours_differ_in_more_than_colour():
    tree = drawn(chart([(0, 0), (1, 0)], [(0, 1), (1, 1)]))
    first, second = find(tree, "line")
    assert first.get("stroke-dasharray") != second.get("stroke-dasharray")
    assert len({dot.tag for dot in find(tree, "dot")}) == 2


def test_reference_lines_are_drawn_and_named_without_overlap():
    tree = drawn(chart([(1, 0.2), (64, 0.9)], lines=[("ANN", 0.97, 0), ("ANN too", 0.9701, 0)], x_scale="log2"))
    assert len(find(tree, "reference")) == 2
    assert [text.text for text in find(tree, "tick") if "halo" in text.get("class")] == ["ANN"]


def test_names_are_escaped_and_told_to_screen_readers():
    tree = drawn(Chart("<b>&", "x<", '"y"', [Series("<script>", [(0, 1), (1, 2)])], [("<i>", 1.5, 0)]))
    space = {"s": ""}
    assert tree.find("title", space).text == "<b>&"
    assert "<script>: from 1 at 0 to 2 at 1" in tree.find("desc", space).text
    assert tree.get("role") == "img"
    assert "<script>" not in line_chart(chart([(0, 1)]), "c")


def test_bands_are_drawn():
    tree = drawn(Chart("t", "x", "y", [Series("s", [(0, 1), (1, 2)], [0.5, 1.5], [1.5, 2.5])]))
    assert len(find(tree, "band")[0].get("points").split()) == 4


def test_ticks_of_numbers_of_all_sizes():
    assert tick_text(1500000.0, (0.0, 1500000.0)) == "1.5M"
    assert tick_text(0.0, (0.0, 20000.0)) == "0"
    assert tick_text(2e-5, (0.0, 2e-5)) == "2e-05"
