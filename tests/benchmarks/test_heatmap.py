"""Grids of numbers in reports."""

import math
import xml.etree.ElementTree as ET

from engram.backbone.contract import Grid
from engram.benchmarks.drawing.heatmap import heat_map


def drawn(columns, rows, values):
    labels = {"title": "Accuracy <&>", "x_label": "tested on", "y_label": "after task"}
    grid = Grid(**labels, columns=columns, rows=rows, values=values)
    return ET.fromstring(heat_map(grid, "g-0"))


def test_cells_shades_and_words():
    svg = drawn(["1", "2"], ["none", "1"], [[0.1, math.nan], [0.9, 0.5]])
    boxes = [node for node in svg if node.tag == "rect"]
    assert [float(box.get("fill-opacity")) for box in boxes] == [0.08, 0.80, 0.44]
    assert [node.text for node in svg if "cell" in node.get("class", "")] == ["0.100", "0.900", "0.500"]
    assert "after task 1: 1: 0.9000, 2: 0.5000." in svg.find("desc").text


def test_many_columns_are_shades_alone_and_all_equal_ones_do_not_divide_by_nothing():
    names = [str(index) for index in range(100)]
    svg = drawn(names, names, [[0.5] * 100] * 100)
    assert len([node for node in svg if node.tag == "rect"]) == 10_000
    assert len([node for node in svg if node.tag == "text"]) < 60
