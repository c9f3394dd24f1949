"""Nothing that a name or a link says leads out of a folder."""

from __future__ import annotations

import json
import os

import pytest

from engram.backbone.errors import UserError
from engram.benchmarks.comparing import compare
from engram.benchmarks.records.contents import Contents, finished
from engram.benchmarks.records.inside import inside, open_inside, refuse_links_out
from engram.benchmarks.records.trials import Record
from engram.benchmarks.report import write_report
from engram.benchmarks.worker.trial import main as work


@pytest.fixture
def folder(tmp_path):
    """A folder with files and links of every kind, beside a secret."""
    folder = tmp_path / "trial"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "weights").write_text("weights")
    (tmp_path / "secret").write_text("secret")
    (folder / "within").symlink_to("model/weights")
    (folder / "out").symlink_to("../secret")
    (folder / "away").symlink_to(tmp_path)
    (folder / "circle").symlink_to("circle")
    os.mkfifo(folder / "pipe")
    (folder / "zeros").symlink_to("/dev/zero")
    return folder


@pytest.mark.parametrize("name", ["model/weights", "within", "model/../within"])
def test_what_lies_inside_is_read(folder, name):
    with open_inside(folder, name) as file:
        assert file.read() == b"weights"
    assert inside(folder, name) == folder / "model" / "weights"


@pytest.mark.parametrize(
    "name", ["out", "away/secret", "../secret", "{}/secret", "circle", "pipe", "zeros", "model", "no", "a\0b"]
)
def test_what_does_not_is_not(folder, name):
    with pytest.raises(OSError):
        open_inside(folder, name.format(folder.parent)).close()


def test_links_out_of_it_are_named(folder):
    with pytest.raises(UserError) as caught:
        refuse_links_out("trial 1", folder)
    assert "trial 1 must be a folder without links out of it; got away, circle, out, zeros." in str(caught.value)


def test_a_worker_writes_nothing_through_a_link(folders, tmp_path, capfd):
    folder = folders.out / "trials" / folders.trial(state="new")
    (tmp_path / "profile").write_text("mine\n")
    (folder / "log.txt").symlink_to(tmp_path / "profile")
    assert work(folder) == 2
    assert (tmp_path / "profile").read_text() == "mine\n"
    assert "must be a folder without links out of it; got log.txt" in capfd.readouterr().err
    assert Record(folder).error["message"].startswith(f"trial {folder.name} must be")


def test_names_of_sweeps_and_trials_stay_below_the_output_folder(folders, tmp_path):
    folders.sweep("nets")
    (tmp_path / "x").mkdir()
    plan = folders.out / "sweeps" / "nets" / "plan.json"
    (tmp_path / "x" / "plan.json").write_bytes(plan.read_bytes())
    with pytest.raises(UserError, match="sweep must be one that was run here"):
        compare(folders.out, "../../x")
    trial = folders.trial()
    plan.write_text(plan.read_text().replace(trial, f"../trials/{trial}"))
    for read in (compare, write_report):
        with pytest.raises(UserError, match=r"plan\.json must be whole; got a trial that is none of this folder"):
            read(folders.out, "nets")


def test_a_report_shows_no_file_from_elsewhere(folders, tmp_path):
    trial = folders.trial(state="failed")
    error = folders.out / "trials" / trial / "error.json"
    error.replace(tmp_path / "elsewhere.json")
    error.symlink_to(tmp_path / "elsewhere.json")
    assert "loss must be finite" not in write_report(folders.out, trial).read_text()


def test_what_a_trial_holds_lies_in_it(folders, tmp_path):
    folder = folders.out / "trials" / folders.trial()
    whole = finished(folder, Contents())
    (tmp_path / "secret").write_text("secret")
    (folder / "model" / "key").symlink_to(tmp_path / "secret")
    result = json.loads((folder / "result.json").read_text())
    for named in ("../../../secret", str(tmp_path), "model"):
        folders.json(folder / "result.json", result | {"artifacts": {"model": named}})
        with pytest.raises(UserError, match="an artifact must be files in"):
            finished(folder, Contents())
    (folder / "model" / "key").unlink()
    folders.json(folder / "result.json", result)
    assert finished(folder, Contents()) == whole
