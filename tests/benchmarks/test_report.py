"""The report: one file, nothing fetched, nothing run, nothing hidden."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256
from html import escape
from html.parser import HTMLParser

import pytest

from engram.backbone.errors import UserError
from engram.benchmarks.cli import main
from engram.benchmarks.records.trials import Record
from engram.benchmarks.report import write_report
from engram.benchmarks.report.curves import merge_lines
from engram.benchmarks.report.figures import figures
from engram.benchmarks.report.html import MOST_ROWS
from engram.benchmarks.report.script import POLICY, SCRIPT
from engram.benchmarks.report.subject import MOST_DRAWN

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Reads a page strictly: every element must be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.tags, self.words, self.attributes = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)


def read(folders, name="nets"):
    path = write_report(folders.out, name)
    assert path == folders.out / "reports" / f"{path.stem}.html"
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_the_page_is_whole_and_alone(folders):
    folders.sweep()
    text, page = read(folders)
    assert text.startswith("<!DOCTYPE html>")
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("script") == 1 and f"<script>{SCRIPT}</script>" in text
    assert b64encode(sha256(SCRIPT.encode()).digest()).decode() in POLICY and escape(POLICY, quote=False) in text
    assert not {"link", "img", "iframe", "object", "form"} & set(page.tags)
    assert not re.search(r"(?:https?:)?//[a-z]", text)
    assert not re.search(r"fetch|XMLHttp|eval|innerHTML|localStorage|cookie", SCRIPT)
    assert "@import" not in text
    assert "url(" not in text.replace("url(#", "")
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("href", "src")]
    assert "prefers-color-scheme:dark" in text
    assert [path.name for path in (folders.out / "reports").iterdir()] == ["nets.html"]


def test_it_says_what_was_found(folders):
    trials = folders.sweep()
    page = read(folders)[1]
    words = " ".join(page.words)
    assert "A sweep of backbone.train on digits: 2 networks × 3 seeds, 6 trials." in words
    assert re.search(r"lenet5 reached test/accuracy = 9\d\.\d\d.% \(95 % interval", words)
    assert "but 3 seeds cannot rule out chance (a test needs 6)" in words
    assert "too few seeds (3 of 6)" in words
    assert "oracle selection" in words
    for trial in trials:
        assert trial in words
    for title in (
        "Leaderboard",
        "Learning curves",
        "Accuracy against steps",
        "How to read this",
        "How to reproduce it",
    ):
        assert title in words
    assert "0123456789abcdef0123456789abcdef01234567" in words
    assert "ab" * 32 in words


def test_charts_and_tables_can_be_read_without_eyes(folders):
    folders.sweep()
    text, page = read(folders)
    charts = re.findall(r'<svg [^>]*role="img".*?</svg>', text, re.S)
    assert len(charts) == 4  # leaderboard, accuracy against steps, two learning curves
    assert all("<title" in chart and "<desc" in chart for chart in charts)
    assert page.tags.count("table") == page.tags.count("caption") == page.tags.count("thead")
    assert text.count('scope="col"') > 5


def test_a_damaged_trial_is_in_no_figure(folders):
    folder = folders.out / "trials" / folders.trial()
    assert figures({"all": [Record(folder)]})
    (folder / "config.json").write_bytes(b"\xff")
    assert figures({"all": [Record(folder)]}) == []


def test_figures_are_averaged_over_seeds_with_their_reference_lines(folders):
    trials = folders.sweep()
    text, _ = read(folders)
    curve = re.search(r'<svg [^>]*aria-labelledby="figures-0.*?</svg>', text, re.S).group()
    assert len(re.findall(r'class="line ', curve)) == 2
    assert len(re.findall(r'class="band ', curve)) == 2
    assert len(re.findall(r'class="reference ', curve)) == 2
    results = [json.loads((folders.out / "trials" / trial / "result.json").read_text()) for trial in trials[:3]]
    mean = sum(result["figures"]["accuracy_vs_steps"]["series"]["SNN"][3][1] for result in results) / 3
    assert f"lenet5: {mean:.4f} at 8" in curve


def test_names_from_outside_are_escaped(folders):
    evil = '"><script>alert(1)</script>'
    folders.sweep(backbones=("lenet5", evil))
    for path in folders.out.glob("trials/*/error.json"):
        path.unlink()
    text, page = read(folders)
    assert text.count("<script") == page.tags.count("script") == 1
    assert evil in "".join(page.words)


def test_trials_without_a_result_are_listed(folders):
    folders.sweep(states={("mlp", 1): "failed", ("mlp", 2): "interrupted"})
    words = " ".join(read(folders)[1].words)
    assert "2 of 6 trials are not counted (1 failed, 1 unfinished)" in words
    assert "Not counted" in words
    assert "loss must be finite; got nan." in words


def test_a_sweep_that_has_just_begun(folders):
    states = {(net, seed): "new" for net in ("lenet5", "mlp") for seed in range(3)} | {("mlp", 0): "interrupted"}
    folders.sweep(states=states)
    words = " ".join(read(folders)[1].words)
    assert "No trial is done yet (5 planned, 1 unfinished)." in words
    assert "Learning curves" in words


def test_a_single_trial_by_its_id_or_the_beginning_of_it(folders):
    trial = folders.trial("lenet5", 2)
    folders.trial("mlp", 0)
    page = read(folders, trial[:9])[1]
    words = " ".join(page.words)
    assert (folders.out / "reports" / f"{trial}.html").exists()
    assert "One trial of backbone.train of lenet5 on digits, seed 2." in words
    assert "engram run backbone.train --seed 2 --epochs 4 --lr 0.05" in words
    assert "Leaderboard" not in words


@pytest.mark.parametrize(("count", "shown"), [(24, True), (0, False)])
def test_test_images_that_were_trained_on_are_a_fact_at_a_glance(folders, count, shown):
    trial = folders.trial()
    where = folders.out / "trials" / trial / "provenance.json"
    about = json.loads(where.read_text())
    folders.json(where, {**about, "facts": {**about["facts"], "test_images_in_train": count}})
    words = read(folders, trial)[1].words
    assert ("test images trained on" in words) == shown
    assert "test_images_in_train" in words


def test_the_command_names_what_matters_to_the_trial(folders):
    def said(**about):
        path = folders.out / "trials" / folders.trial("vgg-tiny", 1) / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | about))
        return " ".join(read(folders, path.parent.name)[1].words)

    recipe = {"seed": 1, "backbone": "vgg-tiny", "epochs": 30, "backbone_options": {"width": 0.5}}
    words = said(config=recipe)
    assert "--backbone vgg-tiny" in words and "--backbone.width 0.5" in words and "--dataset" not in words
    untrained = {"seed": 1, "from": "0123", "steps": 8, "dataset": "digits", "epochs": None, "coding": "delta"}
    assert "engram run snn.convert --seed 1 --from 0123 --steps 8 --coding delta" in said(
        experiment="snn.convert", config=untrained
    )
    gone = said(experiment="lost.plugin", config={"seed": 1, "power": 2})
    assert "engram run lost.plugin --seed 1 --power 2" in gone


def test_one_group_and_one_seed(folders):
    folders.sweep(backbones=("lenet5",), seeds=1)
    words = " ".join(read(folders)[1].words)
    assert "1 seed: no interval" in words
    assert "Difference to" not in words


def test_results_with_holes(folders):
    """What is not finite is null in result.json; the page lives with it."""
    trial = folders.trial("lenet5", 0)
    path = folders.out / "trials" / trial / "result.json"
    result = json.loads(path.read_text())
    result["figures"]["accuracy_vs_steps"]["series"]["SNN"][2][1] = None
    result["figures"]["empty"] = {"title": "empty", "x_label": "", "y_label": "", "series": {}, "lines": {}}
    result["tables"] = {"none": [], "odd": [{"a": None, "b": True}, {"c": "x"}]}
    path.write_text(json.dumps(result))
    page = read(folders, trial)[1]
    assert "odd" in " ".join(page.words)


@pytest.mark.parametrize("name", ["netz", "", "../nets", "0000"])
def test_unknown_names(folders, name):
    folders.sweep()
    with pytest.raises(UserError, match="report must be about one sweep or one trial"):
        write_report(folders.out, name)


def test_a_folder_that_cannot_be_written_is_said(folders, capsys):
    trial = folders.trial()
    (folders.out / "reports").write_text("in the way")
    assert main(["report", trial, "--out", str(folders.out)]) == 2
    assert "--out must be a folder that can be written; got" in capsys.readouterr().err


def test_written_twice_is_the_same(folders):
    folders.sweep()
    assert read(folders)[0] == read(folders)[0]


def test_lines_over_seeds_with_measured_places_are_averaged_by_rank():
    line = merge_lines("early exit", [[(1.0, 0.5), (3.0, 0.9)], [(2.0, 0.7), (5.0, 0.8)]])
    assert [(x, round(y, 6)) for x, y in line.points] == [(1.5, 0.6), (4.0, 0.85)]
    assert (list(line.low or []), list(line.high or [])) == ([0.5, 0.8], [0.7, 0.9])
    same = merge_lines("accuracy", [[(1.0, 0.5), (2.0, 0.9)], [(1.0, 0.7), (2.0, 0.9)]])
    assert [(x, round(y, 6)) for x, y in same.points] == [(1.0, 0.6), (2.0, 0.9)]


def over_data(folders, nets=("lenet5", "mlp"), sets=("digits", "glyphs", "mnist")):
    """A sweep over networks and data sets; deeper into the list of sets all is worse."""
    planned = []
    for net in nets:
        for place, name in enumerate(sets):
            for seed in range(2):
                metrics = {"test/accuracy": 0.9 + 0.02 * (net == "mlp") - 0.1 * place + 0.001 * seed}
                trial = folders.trial(net, seed, options={"dataset": name}, metrics=metrics)
                planned.append({"trial": trial, "options": {"backbone": net, "dataset": name}, "seed": seed})
    axes = {"backbone": list(nets), "dataset": list(sets)}
    folders.json(folders.out / "sweeps" / "nets" / "plan.json", {"axes": axes, "seeds": [0, 1], "trials": planned})


def test_a_sweep_over_data_sets_has_ranks_and_profiles(folders):
    over_data(folders)
    text, page = read(folders)
    words = " ".join(page.words)
    assert "Over tasks" in words and "over 3 tasks (dataset: digits, glyphs, mnist)" in words
    assert "Mean ranks over 3 tasks" in words and "Performance profiles" in words
    ranks = re.search(r'<svg [^>]*aria-labelledby="task-0.*?</svg>', text, re.S).group()
    assert "Mean ranks: mlp 1.0000, lenet5 2." in ranks and "Critical difference 1.1316" in ranks
    assert "backbone=mlp dataset=digits" in words  # the leaderboard tells all apart


def test_tasks_by_any_option(folders):
    over_data(folders, sets=("digits", "glyphs"))
    path = write_report(folders.out, "nets", tasks="backbone")
    assert "over 2 tasks (backbone: lenet5, mlp)" in path.read_text()
    with pytest.raises(UserError, match="--tasks must be an option of the trials; got 'nets'"):
        write_report(folders.out, "nets", tasks="nets")


def test_the_pareto_front_of_several_objectives(folders):
    sizes = {"small": (0.7, 10.0), "middle": (0.8, 30.0), "bad": (0.6, 40.0), "large": (0.9, 50.0)}
    trials = [
        {
            "trial": folders.trial(name, seed, metrics={"test/accuracy": a, "parameters": p}),
            "options": {"backbone": name},
        }
        for name, (a, p) in sizes.items()
        for seed in range(2)
    ]
    plan = {"axes": {"backbone": list(sizes)}, "seeds": [0, 1], "trials": trials}
    folders.json(folders.out / "sweeps" / "nets" / "plan.json", plan)
    assert "Objectives" not in " ".join(read(folders)[1].words)
    text = write_report(folders.out, "nets", ("test/accuracy", "parameters")).read_text()
    assert "3 of 4 groups are on the Pareto front" in text
    table = re.search(r"none beats them in everything</caption>.*?</table>", text, re.S).group()
    marks = re.findall(r'<th scope="row"[^>]*>(\w+)</th>.*?>(yes|no)</td></tr>', table)
    assert dict(marks) == {"small": "yes", "middle": "yes", "large": "yes", "bad": "no"}
    folders.json(
        folders.out / "sweeps" / "nets" / "plan.json",
        {**plan, "search": {"method": "tpe", "objectives": ["test/accuracy", "parameters"]}},
    )
    assert "3 of 4 groups are on the Pareto front" in read(folders)[0]


@pytest.mark.parametrize(
    ("objectives", "said"),
    [
        (("test/accuracy",), "--objectives must be two metrics at least; got test/accuracy"),
        (("test/accuracy", "test/los"), "Did you mean test/loss"),
        (("test/accuracy", "odd"), "--objectives must be metrics that say what is better; got odd"),
    ],
)
def test_objectives_that_are_none(folders, objectives, said):
    folders.sweep(metrics={"odd": 1.0})
    with pytest.raises(UserError) as caught:
        write_report(folders.out, "nets", objectives)
    assert said in str(caught.value)


def test_a_page_about_very_many_groups_says_what_it_leaves_out(folders, monkeypatch):
    one = folders.out / "trials" / folders.trial("mlp", 0)
    result, config = (json.loads((one / f"{name}.json").read_text()) for name in ("result", "config"))
    planned, count = [], MOST_ROWS + 3
    for index in range(count):
        name, lr = f"{index:016x}", index / 1000
        about = {**config["config"], "lr": lr}
        folders.json(folders.out / "trials" / name / "config.json", {**config, "config": about})
        told = {**result, "trial": name, "config": about, "metrics": {"test/accuracy": index / count}}
        folders.json(folders.out / "trials" / name / "result.json", told)
        planned.append({"trial": name, "options": {"lr": lr}, "seed": 0})
    plan = {"axes": {"lr": [each["options"]["lr"] for each in planned]}, "seeds": [0], "trials": planned}
    folders.json(folders.out / "sweeps" / "nets" / "plan.json", plan)
    text, page = read(folders)
    words = " ".join(page.words)
    assert "3 more groups are left out here" in words and "3 more trials are left out here" in words
    assert f"{count - 200} more trials are left out here" in words
    assert f"Only the best {MOST_DRAWN} of {count} groups are drawn." in words
    assert len(text) < 3_000_000


def test_groups_are_called_by_a_column_for_each_option(folders):
    options = {"lr": 0.000735062, "epochs": 12}
    folders.sweep("two", options=options, axes={key: [options[key]] for key in options})
    html = write_report(folders.out, "two").read_text()
    heads = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', html)
    assert heads[:5] == ["backbone", "lr", "epochs", "mean", "95 % interval"]
    assert heads[9:13] == ["backbone", "lr", "epochs", "difference"]
    assert '<th scope="row" class=keep>lenet5</th><td class=num data-v="0.000735062">0.000735062</td>' in html
    more = options | {"momentum": 0.9, "batch_size": 7}
    folders.sweep("five", options=more, axes={key: [more[key]] for key in more})
    html = write_report(folders.out, "five").read_text()
    heads = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', html)
    assert heads[:2] == ["place", "mean"] and heads[7:12] == ["backbone", "lr", "epochs", "momentum", "batch-size"]
    assert heads[12:14] == ["place", "difference"]
    assert "Long names are cut to their values: backbone \N{MIDDLE DOT} lr" in html
