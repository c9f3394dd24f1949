"""What the user sees while trials run, in full and in 80 columns."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from engram.benchmarks.drawing.tables import render
from engram.benchmarks.driving.view import Bars, ProgressView
from engram.benchmarks.planning.naming import words
from engram.benchmarks.records.pace import Pace, Progress, kind, sweep_left
from engram.benchmarks.records.trials import read_sweep


def screen(written):
    """What stands on a terminal that was told this: line feeds, carriage returns, "up" and "erase the line"."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[\??[0-9;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part.endswith("A"):
            row -= 1
        elif part.endswith("K"):
            lines[row] = ""
        elif not part.startswith("\x1b"):
            lines[row] = lines[row].ljust(column)[:column] + part + lines[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines if line.strip()]


@pytest.fixture
def plan(tmp_path):
    """Six trials that differ in an option and in the seed."""
    found = []
    for rate in (0.05, 0.2):
        for seed in range(3):
            config = {"dataset": "digits", "backbone": "mlp", "lr": rate, "epochs": 3, "seed": seed}
            folder = tmp_path / f"{rate}{seed}"
            folder.mkdir()
            found.append(
                SimpleNamespace(id=f"{rate}-{seed}", folder=folder, experiment="backbone.train", config=config)
            )
    return found


def knowing(view, plan, told=("lr",), done=0):
    """The view, once it knows all trials, of which so many were done before."""
    for trial in plan:
        view.knows(trial, told, len(plan))
    for _ in range(done):
        view.skipped()
    return view


def test_trials_are_told_apart_by_what_varies(plan):
    view = knowing(ProgressView(6), plan)
    assert view._words(plan[4]) == ["backbone.train", "digits", "mlp", "lr=0.2", "seed 1"]
    assert view._short(plan[4]) == "lr=0.2 seed 1"
    assert len({view._short(trial) for trial in plan}) == len(plan)
    assert knowing(ProgressView(1), plan[:1])._short(plan[0]) == "backbone.train digits mlp lr=0.05 seed 0"
    first = knowing(ProgressView(6), plan[:1])  # of six, and nobody knows yet in what the others differ
    first.total = 6
    assert first._short(plan[0]) == "lr=0.05 seed 0"
    scored = {"from": "0123", "dataset": None, "seed": 0}
    assert words("backbone.evaluate", scored) == ["backbone.evaluate", "0123", "seed 0"]
    assert words("backbone.evaluate", scored | {"dataset": "folder:a"})[1:3] == ["0123", "folder:a"]
    gone_on = {"from": "0123", "epochs": 3, "dataset": "digits", "backbone": "mlp", "seed": 0}
    assert words("snn.convert", gone_on, ["from"]) == ["snn.convert", "digits", "mlp", "from=0123", "seed 0"]
    # of engram 0.3, which wrote no network's name there
    scored = {"from": "0123", "epochs": None, "dataset": "folder:a", "backbone": "mlp", "seed": 0}
    assert words("snn.convert", scored, ["dataset", "teacher"]) == ["snn.convert", "0123", "dataset=folder:a", "seed 0"]


def test_lines_count_and_say_what_is_left(plan, capsys):
    view = knowing(ProgressView(6), plan, done=2)
    view.started(plan[2])
    view.left = 75.0
    view.ended(plan[2], "done")
    started, ended = capsys.readouterr().err.splitlines()
    assert started == "0.05-2  started 3 of 6  backbone.train digits mlp lr=0.05 seed 2"
    assert re.fullmatch(r"0\.05-2  done 3 of 6  after 0\.\d s, about 1 min 20 s left", ended)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_bars_show_the_whole_plan_and_those_that_run(plan, width):
    told = io.StringIO()
    console = Console(file=told, force_terminal=True, width=width, color_system=None)
    with Bars(6, console) as view:
        knowing(view, plan, done=1)
        for trial in plan[1:4]:
            view.started(trial)
        view.progress(plan[1], Progress(2, 8, "epoch 2.0 of 8", at=10.0, begun=0.0, before=0))
        view.left = 600.0
        view._drawn = 0.0
        view.draw()
        shown = screen(told.getvalue())
        assert [line.partition("━")[0].split(" ", 1)[1].strip() for line in shown[3:]] == [
            "1 of 6 done",
            *("lr=0.05 seed 1", "lr=0.05 seed 2", "lr=0.2 seed 0"),
        ]
        assert shown[3].endswith("10 min left")
        assert "epoch 2.0 of 8" in shown[4]
        assert max(map(len, shown[3:])) <= width
        view.ended(plan[1], "failed")
        view.ended(plan[2], "done")
        view._drawn = 0.0
        view.draw()
        shown = screen(told.getvalue())
        assert sum("seed" in line and "started" not in line for line in shown) == 1  # no bar of one that is over stays
        assert any("2 of 6 done, 1 failed" in line for line in shown)
    assert not any("━" in line for line in screen(told.getvalue()))


def test_what_was_stopped_is_not_over_and_what_was_given_up_is_not_done(plan, capsys):
    told = io.StringIO()
    with Bars(6, Console(file=told, force_terminal=True, width=80, color_system=None)) as view:
        knowing(view, plan, done=1)
        for trial, status in zip(plan[1:4], ("done", "pruned", "stopped"), strict=True):
            view.started(trial)
            view.ended(trial, status)
        view.left = 60.0
        view._drawn = 0.0
        view.draw()
        shown = screen(told.getvalue())
    assert any("2 of 6 done, 1 pruned " in line for line in shown)
    assert re.search(r"stopped  after 0\.\d s$", "\n".join(line.rstrip() for line in shown), re.MULTILINE)


def test_a_long_name_goes_on_in_further_lines(plan):
    told = io.StringIO()
    for trial in plan:
        trial.config["strategies"] = ["continual.er", "continual.derpp", f"continual.seed{trial.id}"]
    with Bars(6, Console(file=told, force_terminal=True, width=80, color_system=None)) as view:
        short = knowing(view, plan, ["lr", "strategies"])._short(plan[0])
        view.started(plan[0])
        view.progress(plan[0], Progress(2, 8, "task 12 of 20, epoch 3.2 of 5", at=10.0, begun=0.0, before=0))
        view._drawn = 0.0
        view.draw()
    said = "".join(line.partition("━")[0] for line in told.getvalue().split("\n")).replace(" ", "")
    assert "".join(short.split()) in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x00-\x7f]|\r", "", said)


def test_a_plan_of_unknown_length_and_a_trial_that_is_started_again(plan, capsys):
    view = ProgressView(None)
    view.knows(plan[0], ["lr"], None)
    view.started(plan[0])
    view.again(plan[0], "lost; attempt 2 of 3 in 2 s")
    view.started(plan[0])
    view.ended(plan[0], "pruned")
    said = [line.partition("  backbone")[0].partition(" after")[0] for line in capsys.readouterr().err.splitlines()]
    assert said == [
        "0.05-0  started 1",
        "0.05-0  lost; attempt 2 of 3 in 2 s",
        "0.05-0  started 1",
        "0.05-0  pruned 1 ",
    ]


def test_the_pace_of_a_trial_is_its_own():
    said = Progress(4, 10, "", at=100.0, begun=100.0, before=4)  # resumed at 4
    assert said.left(100.0) is None
    said = said.next(6, 10, "", now=130.0)
    assert said.left(130.0) == 60.0  # 15 s each
    assert said.left(150.0) == 40.0
    assert said.left(1000.0) == 0.0
    other = said.next(1, 50, "another stretch", now=140.0)
    assert other.left(140.0) is None
    assert other.next(6, 50, "", now=150.0).left(150.0) == 88.0


def test_what_is_left_of_a_plan():
    a, b, c = (kind("x", {"n": n, "seed": 0}) for n in "abc")
    assert kind("x", {"n": "a", "seed": 5}) == a
    assert Pace().left({a: 1, b: 1}, [], 2) is None  # nothing is known
    assert Pace().left({a: 1}, [(b, 5.0, None)], 1) is None
    # the pace of a running trial is that of those that wait: 40 s each
    assert Pace().left({a: 2}, [(a, 10.0, 30.0)], 1) == 30.0 + 2 * 40.0
    pace = Pace()
    for of, seconds in ((a, 10.0), (a, 14.0), (b, 100.0)):
        pace.add(of, seconds)
    assert pace.expected(a) == 12.0
    assert pace.expected(c) == pytest.approx((10 + 14 + 100) / 3)
    assert pace.left({a: 4}, [], 2) == 24.0
    assert pace.left({a: 1, b: 1}, [], 2) == 100.0  # no shorter than its longest trial
    assert pace.left({}, [(a, 4.0, None), (a, 20.0, None)], 2) == 8.0
    assert pace.left({}, [], 2) is None


def test_what_is_left_of_a_sweep_by_its_folders(folders):
    folders.sweep(states={("mlp", 2): "new"})
    assert sweep_left(read_sweep(folders.out, "nets").records) is None  # nobody works on it


def test_a_table_that_is_too_wide_loses_nothing():
    rows = [
        {"trial": "0123456789abcdef", "what": "continual.stream mnist mlp strategies=er,derpp seed 1", "score": 0.51234}
        | {f"task {n}": n / 7 for n in range(12)}
        for _ in range(2)
    ]
    for width in (40, 60, 80):
        text = render("title", rows, width)
        assert max(map(len, text.splitlines())) <= width
        for n in range(12):
            assert f"{n / 7:.4g}" in text
        assert text.count("0123456789abcdef") == 2 * text.count("trial")
        assert "…" not in text
    assert render("title", rows, 400) == render("title", rows)
