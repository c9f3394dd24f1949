"""The command line: quick where it should be, one line for each mistake, one object for --json."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engram.benchmarks.plugin import PLUGIN

HEAVY = ("torch", "mlflow", "numpy", "pyarrow")


LIGHT = [
    ["--help"],
    ["list"],
    ["run", "backbone.train", "--help"],
    ["run", "snn.convert", "--help"],
    ["run", "backbone.train", "--dry-run"],
    ["status"],
    ["completion", "bash"],
    *([name, "--help"] for name, command in PLUGIN.commands.items() if command.summary),
]


def test_nothing_heavy_is_imported(engram):
    """In one process, one after another: what the first of them imports is there for all that follow."""
    code = f"""
import contextlib, io, sys
from engram.benchmarks.cli import main
for words in {LIGHT!r}:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = main(words)
    print(code, bool(out.getvalue()), [name for name in {HEAVY!r} if name in sys.modules], " ".join(words))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=engram.cwd,
        env=engram.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [f"0 True [] {' '.join(words)}" for words in LIGHT]


def test_list_names_everything(here):
    listed = here("list", "--json").json
    assert "counting.count" in [row["name"] for row in listed["experiments"]]
    assert "lenet5" in here("list", "backbones").out


def test_a_broken_plugin_is_a_row_and_no_more(engram, tmp_path):
    broken = tmp_path / "broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_text("[engram.plugins]\nbroken = nothing.plugin:PLUGIN\n")
    engram.env["PYTHONPATH"] = os.pathsep.join((engram.environment()["PYTHONPATH"], str(tmp_path)))
    done = engram("list")
    assert done.code == 0
    assert "unavailable: plugin broken: ModuleNotFoundError: No module named 'nothing'" in done.out
    done = engram("run", "broken.thing")
    assert done.code == 2
    assert "Plugin 'broken' could not be loaded" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rnu"], "got rnu. Did you mean run?"),
        (["run"], "EXPERIMENT must be given"),
        (["run", "backbone.trian"], "Did you mean backbone.train"),
        (["run", "backbone.train", "--backbone", "lenet"], "Did you mean lenet5?"),
        (["run", "backbone.train", "--dataset", "dijits"], "Did you mean digits?"),
        (["run", "backbone.train", "--epoch", "3"], "Did you mean --epochs"),
        (["run", "backbone.train", "--out", "/proc/nowhere"], "--out must be a folder that can be written"),
        (["run", "backbone.evaluate", "--from", "nope"], "See: engram status"),
        (["sweep"], "SUITE.toml must be given"),
        (["sweep", "none.toml"], "suite must be a TOML file"),
        (["sweep", "bad.toml"], "(at line 1, column 14)"),
        (["sweep", "bad.toml", "--workers", "0"], "--workers must be at least 1"),
        (["list", "networks"], "KIND must be one of"),
        (["doctor", "stray"], "got stray as well"),
        (["compare", "none"], "sweep must be one that was run here"),
        (
            ["compare", "none", "--fail-if", "accuracy is bad"],
            "--fail-if must be [mean|min|max|low|high|n|drop|rise] METRIC",
        ),
        (["report", "none"], "report must be about one sweep or one trial"),
        (["run", "backbone.train", "--out", "bad.toml/below"], "--out must be a folder that can be written"),
        (["run", "backbone.train", "--backbone", "lenet", "--backbone.width", "2"], "Did you mean lenet5?"),
        (["run", "backbone.train", "--dataset", "folder"], "Write folder:PATH."),
        (["run", "snn.convert", "--backbone.activation", "gelu"], "Use --backbone.activation relu."),
        (["reproduce", "none"], "TARGET must be a known one"),
        (["completion", "bush"], "Did you mean bash?"),
        (["ui"], "--out must be a folder with mlflow.db"),
        (["ui", "--port", "99999"], "--port must be at least 1 and at most 65535; got 99999"),
        (["status", "--out", ""], "--out must be a path; got ''"),
        (["sync", "--out", "none"], "--out must be a folder with trials"),
        (["exec"], "TRIAL_DIR must be given; got nothing. See: engram exec --help"),
        (["tally"], "TRIAL must be given; got nothing. See: engram tally --help"),
        (["tally", "nope"], "TRIAL must be a trial below runs or a trial's folder; got 'nope'. See: engram status"),
        (["tally", "nope", "--by", "0"], "--by must be at least 1; got 0. See: engram tally --help"),
        (["tally", "nope", "--bye", "3"], "option must be one of those offered; got --bye. Did you mean --by?"),
        (["tally", "nope", "--what", "pebble"], "Did you mean pebbles?"),
        (["talli"], "got talli. Did you mean tally?"),
        (["lost"], "command lost must be one that can be loaded; got counting.nowhere:go (ModuleNotFoundError"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_line_and_exit_code_2(here, words, said):
    (here.cwd / "bad.toml").write_text("experiment = = 3\n")
    done = here(*words)
    assert done.code == 2, done.err
    assert done.out == ""
    assert len(done.complaints) == 1
    assert done.err.count("\n") == 1
    assert said in done.err


def test_every_mistake_is_said_at_once(here):
    words = [
        "--lr",
        "-1",
        "--epochs",
        "1.5",
        "--batch-size",
        "many",
        "--optimizer",
        "sdg",
        "--dataset",
        "dijits",
        "--backbone.width",
        "x",
        "--foo",
        "1",
    ]
    done = here("run", "backbone.train", *words)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines() == done.complaints
    for flag in ("--lr", "--epochs", "--batch-size", "--optimizer", "dataset", "--backbone.width", "option"):
        assert sum(line.startswith(f"engram: {flag} must be") for line in done.complaints) == 1, flag
    assert len(done.complaints) == 7
    assert not (here.cwd / "runs").exists()


def test_bad_data_are_one_line_each(here):
    done = here("run", "backbone.train", "--dataset", "mnist", "--data-root", "nowhere")
    assert (done.code, done.out) == (2, "")
    (complaint,) = done.complaints
    assert str(here.cwd / "nowhere" / "MNIST") in complaint
    assert "--data-root" in complaint
    assert "--download" in complaint
    for name in ("a", "b"):
        (here.cwd / "pictures" / name).mkdir(parents=True)
        (here.cwd / "pictures" / name / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (here.cwd / "short.parquet").write_bytes(b"PAR1")
    names = '["folder:pictures", "folder:home", "parquet:short.parquet"]'
    (here.cwd / "bad.toml").write_text(f'experiment = "backbone.train"\n[grid]\ndataset = {names}\n')
    done = here("sweep", "bad.toml", "--workers", "3")
    assert (done.code, done.out) == (2, "")
    # all of them, in one go, before any trial starts
    assert [line for line in done.err.splitlines() if not line.startswith("engram: ")] == []
    assert len(done.complaints) == 4
    assert len([line for line in done.complaints if f"damaged one: {here.cwd}/pictures/" in line]) == 2
    assert any("short.parquet" in line for line in done.complaints)
    assert not (here.cwd / "runs" / "sweeps").exists()


def test_json_is_one_object_and_the_rest_goes_to_standard_error(engram, here):
    done = engram("run", "counting.count", "--steps", "2", "--loud", "--json", "--out", "here")
    assert done.code == 0
    result = done.json
    assert set(result) == {"experiment", "trial", "config", "metrics", "tables", "artifacts"}
    assert result["metrics"]["total"] == 2.0
    assert Path(result["artifacts"]["note"]).is_absolute()
    assert "pebbles" in done.err
    again = here("run", "counting.count", "--steps", "2", "--loud", "--json", "--out", "here")
    assert again.json == result
    assert "started" not in again.err
    status = here("status", "--json", "--out", "here").json
    assert [row["status"] for row in status["trials"]] == ["done"]


def test_failures_of_a_run(here, put_store):
    put_store(here.cwd / "runs")
    done = here("run", "counting.count", "--fail", "user", "--json")
    assert (done.code, done.out) == (2, "")
    assert len(done.complaints) == 1
    done = here("run", "counting.count", "--fail", "crash")
    assert done.code == 1
    assert "log.txt" in done.complaints[0]
    assert "Traceback" not in done.err


def test_dry_run_writes_nothing(here):
    plan = here("run", "counting.twice", "--dry-run", "--json", "--out", "here").json
    assert [trial["experiment"] for trial in plan["trials"]] == ["counting.count", "counting.twice"]
    assert not (here.cwd / "here").exists()


def test_requirements_are_run_first_and_from_takes_them(here, put_store):
    put_store(here.cwd / "runs")
    first = here("run", "counting.twice", "--steps", "4", "--json").json
    assert first["metrics"]["double"] == 8.0
    count = next(
        row["trial"] for row in here("status", "--json").json["trials"] if row["experiment"] == "counting.count"
    )
    assert here("run", "counting.twice", "--from", count[:5], "--json").json["metrics"]["double"] == 8.0
    assert len(here("status", "--json").json["trials"]) == 3


def test_reproduce(here, put_store):
    put_store(here.cwd / "runs")
    done = here("reproduce", "counting-tens", "--json")
    (row,) = done.json["targets"]
    assert (done.code, row["verdict"], row["ours"], row["n"]) == (0, "reproduced", 4.5, 2)


@pytest.mark.slow
def test_reproduce_judges_some_of_the_seeds_so_far(here):
    (row,) = here("reproduce", "counting-tens", "--seeds", "1", "--json").json["targets"]
    assert (row["verdict"], row["n"], row["low"]) == ("reproduced so far", 1, None)
    assert here("reproduce", "counting-tens", "--json").json["targets"][0]["n"] == 2


def test_reproduce_runs_nothing_where_a_gpu_is_asked_for_and_missing(here):
    done = here("reproduce", "continual/split-cifar10", "--device", "cpu", "--json")
    rows = done.json["targets"]
    assert (done.code, {row["verdict"] for row in rows}, {row["n"] for row in rows}) == (1, {"no GPU"}, {0})
    assert here("status", "--json").json["trials"] == []


def test_reproduce_starts_nothing_without_data(engram):
    done = engram("reproduce", "snn/convert-mnist-lenet5-t8", "--data-root", "nowhere", "--json")
    (row,) = done.json["targets"]
    assert (done.code, row["verdict"], row["n"], len(done.complaints)) == (1, "no data", 0, 1)
    assert "nowhere" in done.complaints[0] and "--download" in done.complaints[0]
    assert engram("status", "--json").json["trials"] == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh"])
def test_completion(here, shell):
    script = here("completion", shell).out
    assert "quickstart" in script
    if shell == "bash":
        assert "--backbone.width" in script and "--by" in script.partition("tally")[2]
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_help_shows_the_options_of_the_chosen_network(here):
    assert "--backbone.dropout" in here("run", "backbone.train", "--backbone", "mlp", "--help").out
    assert "--backbone.dropout" not in here("run", "backbone.train", "--help").out


def test_help_shows_the_options_of_several_chosen_strategies(here):
    shown = here("run", "continual.stream", "--strategies", "si,er", "--help").out
    assert "--strategies.si.c" in shown and "--strategies.er.replay-batch" in shown
    assert "--strategies.si" not in here("run", "continual.stream", "--help").out


def test_version(engram):
    assert json.dumps(engram("--version").out).startswith('"engram ')


def test_a_plugin_brings_a_command(here, put_store):
    put_store(here.cwd / "runs")
    shown = here("--help").out
    assert "tally TRIAL [WORD]" in shown and "Add a count up in steps" in shown and "exec" not in shown
    help_text = here("tally", "--help").out
    assert "engram tally TRIAL [WORD]" in help_text and "--by" in help_text and "How many at once." in help_text
    assert here("run", "counting.count", "--steps", "6").code == 0
    (trial,) = here("status", "--json").json["trials"]
    assert here("tally", trial["trial"][:6], "sheep", "--by", "2").out == "sheep: 2 4 6\n"
    failed = here("tally", trial["trial"], "--by", "7")
    assert (failed.code, failed.complaints) == (1, ["engram: the count must be 7 at least; got 6.0. Count further."])


def test_a_command_that_clashes_makes_its_plugin_a_broken_one(here):
    info = here.cwd / "thief-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thief\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[engram.plugins]\naaa = thief:PLUGIN\n")
    (here.cwd / "thief.py").write_text(
        "from engram.backbone.contract import Command, Plugin\n"
        "PLUGIN = Plugin(name='aaa', commands={'run': Command(summary='Mine', handler='thief:run')})\n"
    )
    here.env["PYTHONPATH"] = os.pathsep.join((str(here.site), str(here.cwd)))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(here.cwd))
        assert (
            "it offers command 'run', which plugin 'benchmarks' offers already"
            in here("list", "--json").json["broken"]["aaa"]
        )
        assert "Mine" not in here("--help").out
    sys.modules.pop("thief")


@pytest.mark.parametrize("package", ["snn", "benchmarks", "backbone", "continual"])
def test_a_plugin_written_against_the_old_names_is_told_the_new_ones(here, package):
    info = here.cwd / "old-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: old\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[engram.plugins]\nold = old_plugin:PLUGIN\n")
    (here.cwd / "old_plugin.py").write_text(f"from {package}.contract import Plugin\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(here.cwd))
        why = f"it imports {package}, which is called engram.{package}. Write: import engram.{package}"
        assert f"unavailable: plugin old: {why}" in here("list").out
        assert why in here("run", "old.thing").complaints[0]
