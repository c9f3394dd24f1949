"""Figures of every kind: from an experiment's hands into result.json, over seeds, into a drawing."""

from __future__ import annotations

import io
import json
import math
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from engram.backbone.contract import FIGURES, Bars, Confusion, Figure, Grid, Pictures, Raster, Scatter
from engram.backbone.errors import TrialError
from engram.benchmarks.drawing.figures import draw, key
from engram.benchmarks.records.stored import misfit
from engram.benchmarks.records.trials import Record
from engram.benchmarks.report import write_report
from engram.benchmarks.report.figures import figures
from engram.benchmarks.report.picture import picture
from engram.benchmarks.sink.files import drawn
from engram.benchmarks.worker.pictures import plain_figures
from engram.benchmarks.worker.trial import json_safe

LABELS = {"title": "A <title> & more", "x_label": "x", "y_label": "y"}
GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)
ONE_OF_EACH = {
    "lines": Figure(**LABELS, series={"a": [(0, 1.0), (1, 2.0)]}),
    "grid": Grid(**LABELS, columns=["1", "2"], rows=["1"], values=[[0.5, math.nan]]),
    "scatter": Scatter(**LABELS, series={"a": [(0.1, 0.2), (0.3, math.nan)]}, y_ranges={"a": [(0.0, 0.4), (0.1, 0.2)]}),
    "bars": Bars(**LABELS, names=["one", "two"], series={"a": [1.0, -2.0], "b": [3.0, math.nan]}),
    "confusion": Confusion(title="C", classes=["cat", "dog"], counts=[[3, 1], [0, 4]]),
    "raster": Raster(title="R", x_label="step", start=0, end=4, groups={"relu1": [[1, 2], []], "relu2": [[4]]}),
    "pictures": Pictures(title="P", pictures=[GREY, np.zeros((2, 2, 3), np.uint8)], captions=["grey", "black"]),
}


def elements(text, kind):
    assert not re.search(r"\b(nan|inf)\b", re.sub(r"<(title|desc).*?</\1>", "", text))
    return [each for each in ET.fromstring(text).iter() if kind in each.get("class", "").split()]


@pytest.fixture
def record(folders):
    """A finished trial with a figure of each kind, and two without a word for theirs."""

    def make(seed=0, figures=ONE_OF_EACH):
        folder = folders.out / "trials" / folders.trial(seed=seed)
        result = json.loads((folder / "result.json").read_text())
        result["figures"] |= json_safe(plain_figures(folder, figures))
        assert misfit("result.json", json.dumps(result)) == ""
        folders.json(folder / "result.json", result)
        return Record(folder)

    return make


def test_every_kind_is_written_read_and_drawn(record):
    made = record()
    assert {name: about.get("kind") for name, about in made.result["figures"].items()} == {
        "accuracy_vs_steps": None,  # written by 0.3.0
        **{kind: kind for kind in FIGURES},
    }
    assert set(ONE_OF_EACH) == set(FIGURES)
    texts = drawn(made)  # for MLflow
    for kind, figure in ONE_OF_EACH.items():
        assert figure.title in "".join(ET.fromstring(texts[f"figures/{kind}.svg"]).itertext())
    text = write_report(made.folder.parents[1], made.trial).read_text()
    assert text.count("<figure><figcaption>A &lt;title&gt; &amp; more</figcaption>") == 4
    assert text.count('href="data:image/png;base64,') == text.count("href=") == 2


def test_pictures_become_files_of_the_trial(record):
    made = record()
    paths = made.result["figures"]["pictures"]["pictures"]
    assert paths == ["figures/pictures-0.png", "figures/pictures-1.png"]
    assert np.array_equal(np.asarray(Image.open(made.folder / paths[0])), GREY)
    raw = io.BytesIO()
    Image.fromarray(GREY).save(raw, "PNG")
    as_they_are = Pictures(title="P", pictures=[raw.getvalue()], captions=[""])
    plain_figures(made.folder, {"../p": as_they_are})
    assert (made.folder / "figures" / "___p-0.png").read_bytes() == raw.getvalue()


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (GREY.astype(np.float32), "float32 of shape [3, 4]"),
        (GREY[None], "uint8 of shape [1, 3, 4]"),
        (b"GIF89a", "6 bytes that are no PNG file"),
    ],
)
def test_what_is_no_picture_is_said(tmp_path, wrong, got):
    with pytest.raises(
        TrialError, match=re.escape("a picture of figure p must be a PNG file or an array of uint8")
    ) as e:
        plain_figures(tmp_path, {"p": Pictures(title="", pictures=[wrong], captions=[""])})
    assert f"got {got}." in str(e.value)


def test_a_picture_that_is_gone_or_leads_out_is_a_grey_place(record, tmp_path):
    made = record()
    (made.folder / "figures" / "pictures-0.png").unlink()
    (made.folder / "figures" / "pictures-0.png").symlink_to("/etc/hostname")
    (made.folder / "figures" / "pictures-1.png").write_bytes(b"no picture")
    (sheet,) = [each for each in figures({"a": [made]}) if isinstance(each, Pictures)]
    assert sheet.pictures == [b"", b""]
    assert len(elements(draw(sheet, "p"), "lost")) == 2


@pytest.mark.parametrize(
    ("figure", "why"),
    [
        (Confusion(title="", classes=["a"], counts=[[1, 2]]), "a row and a column for every class"),
        (Confusion(title="", classes=["a"], counts=[[-1]]), "greater than or equal to 0"),
        (Bars(**LABELS, names=["a"], series={"s": [1.0, 2.0]}), "a value for every name"),
        (Scatter(**LABELS, series={"s": [(1, 2)]}, y_ranges={"s": []}), "an error bar for every point"),
        (Pictures(title="", pictures=[], captions=["a"]), "a caption for every picture"),
    ],
)
def test_a_figure_of_another_shape_is_said(tmp_path, folders, figure, why):
    result = json.loads((folders.out / "trials" / folders.trial() / "result.json").read_text())
    result["figures"] = json_safe(plain_figures(tmp_path, {"it": figure}))
    assert why in misfit("result.json", json.dumps(result))
    result["figures"]["it"] = {"kind": "hologram", "title": ""}
    assert misfit("result.json", json.dumps(result)).startswith("figures.it")


def test_over_seeds_counts_add_up_bars_have_a_reach_and_spikes_are_the_first_seeds(record):
    other = {
        "confusion": Confusion(title="C", classes=["cat", "dog"], counts=[[1, 1], [2, 0]]),
        "bars": Bars(**LABELS, names=["one", "two"], series={"a": [3.0, -2.0], "b": [5.0, 1.0]}),
        "scatter": Scatter(**LABELS, series={"a": [(0.5, 0.6)]}, y_ranges={"a": [(0.5, 0.7)]}),
        "grid": Grid(**LABELS, columns=["1", "2"], rows=["1"], values=[[1.5, 1.0]]),
        "raster": Raster(title="R", x_label="step", start=0, end=4, groups={"relu1": [[3], []]}),
    }
    found = {type(each).__name__: each for each in figures({"g": [record(0), record(1, other)]})}
    assert found["Confusion"].counts == [[4, 2], [2, 4]]
    assert found["Bars"].series["a"] == [2.0, -2.0] and found["Bars"].ranges["a"] == [(1.0, 3.0), (-2.0, -2.0)]
    assert found["Bars"].ranges["b"][1] == (1.0, 1.0)
    assert [len(found["Scatter"].series["a"]), len(found["Scatter"].y_ranges["a"])] == [3, 3]
    assert found["Grid"].values[0][0] == 1.0
    assert (found["Raster"].title, found["Raster"].groups["relu1"]) == ("R, seed 0", [[1, 2], []])
    groups = figures({"g": [record(0)], "h": [record(1, other)]})
    assert [each.title for each in groups if isinstance(each, Confusion)] == ["C (g)", "C (h)"]


def test_bars_begin_at_nought_and_reach_their_values():
    svg = draw(ONE_OF_EACH["bars"], "b")
    boxes = [(float(each.get("x")), float(each.get("width"))) for each in elements(svg, "bar")]
    (a, wide), (c, tall), (b, low) = boxes  # one: a, b; two: a, whose b is not a number
    assert a == c and b + low == pytest.approx(a, abs=0.1)
    assert (tall / wide, low / wide) == (pytest.approx(3, abs=0.01), pytest.approx(2, abs=0.01))
    assert [said for _, said in key(ONE_OF_EACH["bars"])] == ["a", "b"]


def test_shades_of_a_confusion_are_roots_of_shares_and_mistakes_have_a_colour_of_their_own():
    cells = elements(draw(ONE_OF_EACH["confusion"], "c"), "shade")
    shades = [(each.get("class").split()[0], float(each.get("fill-opacity"))) for each in cells]
    expected = [("c0", 0.08 + 0.72 * 0.75**0.5), ("c1", 0.08 + 0.72 * 0.5), ("c0", 0.8)]
    assert [(colour, pytest.approx(shade, abs=0.005)) for colour, shade in expected] == shades
    fifty = [str(index) for index in range(50)]
    big = Confusion(title="", classes=fifty, counts=[[int(i == j) for j in range(50)] for i in range(50)])
    assert len(elements(draw(big, "c"), "shade")) == 50


def test_every_spike_is_a_stroke_where_its_neuron_stands():
    paths = elements(draw(ONE_OF_EACH["raster"], "r"), "spike")
    strokes = [re.findall(r"M([\d.]+) ([\d.]+)v", path.get("d")) for path in paths]
    assert [len(each) for each in strokes] == [2, 1]
    (first, second), (last,) = strokes
    assert first[1] == second[1] and float(last[1]) > float(first[1])
    assert float(last[0]) - float(first[0]) == pytest.approx(3 * (float(second[0]) - float(first[0])), abs=0.2)
    many = Raster(title="", x_label="", start=0, end=1, groups={"a": [[1]] * 5000})
    assert len(re.findall("M", elements(draw(many, "r"), "spike")[0].get("d"))) <= 400


def test_points_have_error_bars_and_a_diagonal():
    figure = Scatter(**LABELS, series={"a": [(0.1, 0.2)]}, y_ranges={"a": [(0.0, 0.4)]}, diagonal=True)
    svg = draw(figure, "s")
    (bar,), (point,) = elements(svg, "error"), elements(svg, "dot")
    assert bar.get("x1") == bar.get("x2") == point.get("cx")
    middle = (float(bar.get("y1")) + float(bar.get("y2"))) / 2
    assert middle == pytest.approx(float(point.get("cy")), abs=0.1)
    assert len(elements(svg, "diagonal")) == 1 and len(elements(picture(figure), "diagonal")) == 2


@pytest.mark.parametrize(
    "empty",
    [
        Scatter(**LABELS, series={}),
        Bars(**LABELS, names=[], series={}),
        Confusion(title="", classes=[], counts=[]),
        Raster(title="", x_label="", start=0, end=0, groups={}),
        Pictures(title="", pictures=[], captions=[]),
        Grid(**LABELS, columns=[], rows=[], values=[]),
    ],
    ids=lambda figure: figure.kind,
)
def test_nothing_is_drawn_too(empty):
    assert ET.fromstring(draw(empty, "e")).tag == "svg"


def test_points_on_axes_of_their_own_are_the_first_seeds(record):
    own = [{"map": Scatter(**LABELS, series={"a": [(float(seed), 0.0)]}, own_axes=True)} for seed in (0, 1)]
    drawn_once = figures({"g": [record(seed, each) for seed, each in enumerate(own)]})
    (found,) = (each for each in drawn_once if isinstance(each, Scatter))
    assert (found.title, found.series) == (f"{LABELS['title']}, seed 0", {"a": [(0.0, 0.0)]})
