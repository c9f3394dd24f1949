"""What a trial is made from is part of it: data by their bytes, trials by what they hold."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from engram.backbone.contract import DataFiles, Result
from engram.backbone.errors import MissingData, UserError
from engram.backbone.registry import Registry
from engram.benchmarks.driving.setting import RunSetting
from engram.benchmarks.driving.writing import write_trial
from engram.benchmarks.planning.plan import Planner
from engram.benchmarks.records import contents as contents_module
from engram.benchmarks.records.contents import MEMORY, Contents
from engram.benchmarks.records.identity import DataSets
from engram.benchmarks.records.stored import read_json, write_json
from engram.benchmarks.worker.stopping import STOPPED, Stop
from engram.benchmarks.worker.trial import publish, work

pytestmark = pytest.mark.usefixtures("with_plugins")


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


PICTURES = {"cat/1.png": b"one", "cat/2.png": b"two", "dog/1.png": b"three"}  # nobody looks at them here


@pytest.fixture
def pics(tmp_path) -> Path:
    return write(tmp_path / "pics", PICTURES)


@pytest.fixture
def plan(tmp_path):
    """Plan a trial, a new process each time; by default one that counts, whatever its data."""

    def add(dataset: str | None = None, experiment: str = "counting.count", root: Path = tmp_path, **options):
        given = {**options, **({} if dataset is None else {"dataset": str(dataset)})}
        registry = Registry.discover()
        sets = DataSets(registry, root, Contents(tmp_path / "runs" / MEMORY))
        trial = Planner(registry, tmp_path / "runs", sets).add(experiment, given)
        trial.folder.mkdir(parents=True, exist_ok=True)
        sets.contents.save()
        return trial

    return add


def begin(trial, root: Path) -> None:
    write_trial(trial, RunSetting(out=trial.folder.parents[1], data_root=root, argv=[]))


# --- data ---------------------------------------------------------------------------------------------------------


def test_a_path_that_names_the_same_bytes_is_the_same_data(pics, plan, tmp_path, monkeypatch):
    first = plan(f"folder:{pics}")
    monkeypatch.chdir(tmp_path)
    relative = plan("folder:pics")
    assert relative.id == first.id
    assert relative.config["dataset"] == f"folder:{pics}"  # wherever it is looked for from then on
    shutil.copytree(pics, tmp_path / "copy")
    shutil.move(pics, tmp_path / "elsewhere")
    assert plan("folder:copy").id == plan("folder:elsewhere").id == first.id
    write(tmp_path / "copy", {"README.txt": b"no picture"})
    assert plan("folder:copy").id == first.id
    assert plan("folder:copy", steps=6).id != first.id


@pytest.mark.parametrize(
    "other",
    [
        PICTURES | {"cat/2.png": b"Two"},
        PICTURES | {"cat/3.png": b"more"},
        {"cat/1.png": b"two", "cat/2.png": b"one", "dog/1.png": b"three"},
        {"cat/1.png": b"one", "dog/0.png": b"two", "dog/1.png": b"three"},
        {"cat/1.png": b"one", "cat/2.png": b"two", "pig/1.png": b"three"},
        {f"train/{name}": data for name, data in PICTURES.items()} | {"test/cat/1.png": b"one"},
        {"cat/0.png": b"one", "cat/2.png": b"two", "dog/1.png": b"three"},
        PICTURES | {"metadata.csv": b"file_name,writer"},
    ],
    ids=[
        *("other pixels", "one more", "another order", "another label", "another class", "a test set"),
        *("another name, which may tell of it", "something told of it"),
    ],
)
def test_other_data_are_another_trial(pics, plan, other):
    before = plan(f"folder:{pics}").id
    shutil.rmtree(pics)
    assert plan(f"folder:{write(pics, other)}").id != before


def test_the_data_root_s_files_count_and_its_name_does_not(plan, tmp_path):
    files = {f"MNIST/raw/{part}-ubyte": part.encode() for part in IDX}
    one, two = write(tmp_path / "one", files), write(tmp_path / "two", files)
    assert plan("mnist", root=one).id == plan("mnist", root=two).id
    assert plan("saccades:mnist", root=one).id == plan("saccades:mnist", root=two).id
    write(two, {f"MNIST/raw/{IDX[0]}-ubyte": b"other"})
    assert plan("mnist", root=one).id != plan("mnist", root=two).id
    assert plan("saccades:mnist", root=one).id != plan("saccades:mnist", root=two).id


IDX = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def test_what_is_known_by_its_name_has_no_bytes_in_its_identity(plan, tmp_path):
    assert plan("digits", "backbone.train").data == {}
    assert plan("digits", "backbone.train", root=tmp_path / "other").id == plan("digits", "backbone.train").id
    assert plan().data == {}  # a third party's set, which says nothing of files


def test_what_a_wrapped_set_is_made_of_is_part_of_the_trial(plan, tmp_path, monkeypatch):
    files = {f"MNIST/raw/{part}-ubyte": part.encode() for part in IDX}
    one, two = write(tmp_path / "one", files), write(tmp_path / "two", files | {f"MNIST/raw/{IDX[0]}-ubyte": b"other"})

    def corrupted(root=one, name="mnist", **options):
        return plan(f"corrupted:{name}", "backbone.train", root=root, dataset_options=options)

    usual = corrupted()
    assert usual.data.keys() == {"corrupted:mnist"}
    others = [corrupted(two), corrupted(kind="jpeg"), corrupted(severity=4), corrupted(corruption_seed=1)]
    assert len({usual.id, *(each.id for each in others)}) == 5
    assert corrupted(severity=3).id == usual.id
    ids = {corrupted(name="glyphs", classes=classes).id for classes in (1000, 500)}
    entries = Registry.discover().plugins["backbone"].datasets
    for name in ("corrupted", "glyphs"):
        monkeypatch.setitem(entries, name, replace(entries[name], version=2))
        Registry.discover()._found.clear()
        ids.add(corrupted(name="glyphs").id)
    monkeypatch.undo()
    Registry.discover()._found.clear()
    assert len(ids) == 4


def test_without_the_data_nobody_knows_the_trial(plan, tmp_path):
    trial = plan(f"folder:{tmp_path}/nowhere")
    assert not trial.settled
    assert plan("mnist").data == {"mnist": None}
    assert plan("digits").settled


class Shop:
    """A registry of one data set, which can be downloaded."""

    def __init__(self) -> None:
        self.sold = 0

    def files(self, name, *, root):
        if not (root / "file").exists():
            raise MissingData("not there")
        return DataFiles(name=name, where=name, files={"file": root / "file"})

    def options(self, kind, name):
        return None

    def load(self, kind, name):
        return self.sell

    def sell(self, path, options, *, root, download, budget_bytes):
        self.sold += download
        (root / "file").write_bytes(b"data")


def test_what_is_to_be_downloaded_is_there_before_its_trial_gets_an_id(tmp_path):
    shop = Shop()
    assert DataSets(shop, tmp_path).find("things", {}).sha256 is None
    assert DataSets(shop, tmp_path, fetch=True).find("things", {}) == DataSets(shop, tmp_path).find("things", {})
    assert (shop.sold, (tmp_path / "file").read_bytes()) == (1, b"data")


# --- reading them as seldom as possible ---------------------------------------------------------------------------


@pytest.fixture
def read(monkeypatch):
    """The names of all files whose bytes are read; files count as settled as soon as they are written."""
    found: list[str] = []
    sha256 = contents_module._sha256
    monkeypatch.setattr(contents_module, "_sha256", lambda path: (found.append(path.name), sha256(path))[1])
    monkeypatch.setattr(contents_module, "_SETTLED_NS", -1)
    return found


def test_bytes_are_read_again_only_when_something_about_the_files_changed(pics, plan, read):
    first = plan(f"folder:{pics}")
    assert len(read) == 3
    assert plan(f"folder:{pics}").id == first.id
    assert len(read) == 3
    about = (pics / "dog" / "1.png").stat()
    time.sleep(0.02)  # a file system's clock
    (pics / "dog" / "1.png").write_bytes(b"THREE")  # in place, of the same size, and its time set back
    os.utime(pics / "dog" / "1.png", ns=(about.st_atime_ns, about.st_mtime_ns))
    assert plan(f"folder:{pics}").id != first.id
    assert len(read) == 6


@pytest.mark.parametrize("memory", ["", "[1]", '{"x": 3', None])
def test_a_memory_that_is_lost_or_damaged_costs_time_alone(pics, plan, read, tmp_path, memory):
    first = plan(f"folder:{pics}")
    where = tmp_path / "runs" / MEMORY
    where.unlink()
    if memory is None:
        where.mkdir()  # nobody can write there
    else:
        where.write_text(memory)
    assert plan(f"folder:{pics}").id == first.id
    assert len(read) == 6


def test_files_just_written_are_not_remembered(pics, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(contents_module, "_SETTLED_NS", 10**18)
    plan(f"folder:{pics}")
    assert not (tmp_path / "runs" / MEMORY).exists()


# --- the worker ---------------------------------------------------------------------------------------------------


class Soon:
    """Asks to stop when it has been looked at ``steps`` times, and does something when it has been ``when`` times."""

    why = ""

    def __init__(self, steps: int, when: int = 0, what=lambda: None) -> None:
        self.steps, self.when, self.what, self.looked = steps, when, what, 0

    @property
    def asked(self) -> bool:
        self.looked += 1
        if self.looked == self.when:
            self.what()
        return self.looked > self.steps


def test_data_replaced_before_the_trial_runs(pics, plan, tmp_path):
    trial = plan(f"folder:{pics}")
    begin(trial, tmp_path)
    write(pics, {"cat/1.png": b"others"})
    with pytest.raises(UserError, match=f"dataset folder:{pics} must be the one that the trial was planned on; got o"):
        work(trial.folder, Stop())
    write(pics, PICTURES)
    assert work(trial.folder, Stop()) == 0


def test_data_that_come_after_the_plan_are_planned_with_first(plan, tmp_path):
    trial = plan(f"folder:{tmp_path}/late")
    begin(trial, tmp_path)
    write(tmp_path / "late", PICTURES)
    with pytest.raises(UserError, match="got files that came later"):
        work(trial.folder, Stop())
    assert plan(f"folder:{tmp_path}/late").id != trial.id


def test_data_replaced_under_a_trial_that_runs_or_waits_to_go_on(pics, plan, tmp_path, monkeypatch):
    monkeypatch.setenv("ENGRAM_CHECKPOINT_SECONDS", "0")
    trial = plan(f"folder:{pics}")
    begin(trial, tmp_path)
    assert work(trial.folder, Soon(2)) == STOPPED
    write(pics, {"cat/1.png": b"others"})
    with pytest.raises(UserError, match="got other files"):
        work(trial.folder, Stop())
    assert plan(f"folder:{pics}").id != trial.id
    write(pics, PICTURES)
    with pytest.raises(UserError, match="got other files"):
        work(trial.folder, Soon(99, 2, lambda: write(pics, {"cat/1.png": b"others"})))
    assert not (trial.folder / "result.json").exists()


def test_a_half_trained_trial_follows_its_data_to_another_place(pics, plan, tmp_path):
    trial = plan(f"folder:{pics}")
    begin(trial, tmp_path)
    assert work(trial.folder, Soon(2)) == STOPPED
    moved = shutil.move(pics, tmp_path / "moved")
    again = plan(f"folder:{moved}")
    assert again.id == trial.id
    begin(again, tmp_path)
    assert work(trial.folder, Stop()) == 0
    assert read_json(trial.folder / "result.json")["config"]["dataset"] == f"folder:{moved}"


# --- trials made from trials --------------------------------------------------------------------------------------


def finish(trial, root: Path, weights: bytes = b"weights") -> Path:
    """Let a trial be done, with a network of its own."""
    begin(trial, root)
    write(trial.folder, {"model/model.safetensors": weights, "model/model.json": b"{}"})
    publish(trial.folder, trial.stored(), result(), 1.0)
    return trial.folder


def result() -> Result:
    artifacts = {"model": "model/model.safetensors", "manifest": "model/model.json"}
    return Result(metrics={"test/accuracy": 0.5}, artifacts=artifacts)


def test_an_input_is_what_its_files_are(plan, tmp_path, capsys):
    folder = finish(plan("digits", "backbone.train"), tmp_path)

    def of(source: Path) -> str:
        return plan(None, "backbone.evaluate", from_trial=str(source)).id

    first = of(folder)
    assert of(shutil.copytree(folder, tmp_path / "plain")) == first
    assert capsys.readouterr().err == ""
    altered = [shutil.copytree(folder, tmp_path / name) for name in ("one", "two", "three")]
    write(altered[0], {"model/model.safetensors": b"Weights"})
    write(altered[1], {"model/model.json": b'{"classes": []}'})
    about = read_json(folder / "config.json")
    write_json(altered[2] / "config.json", about | {"config": about["config"] | {"epochs": 77}})
    assert len({first, *map(of, altered)}) == 4
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    for line, source in zip(said, altered, strict=True):
        assert line.startswith(f"engram: {source} is not trial {folder.name} as it was finished")
    trial = plan(None, "backbone.evaluate", from_trial=str(altered[0]))
    begin(trial, tmp_path)
    write(altered[0], {"model/model.safetensors": b"weights again"})
    with pytest.raises(UserError, match=f"input trained in {altered[0]} must be the trial that this one was planned"):
        work(trial.folder, Stop())


def test_what_is_made_from_a_trial_is_the_same_wherever_its_data_lay(plan, pics, tmp_path, capsys):
    def of(place: Path) -> tuple[str, str]:
        """A trial that another one is made from, with the place of its data in its network's record."""
        folder = finish(plan(f"folder:{place}", "backbone.train"), tmp_path)
        write(folder, {"model/model.json": json.dumps({"data": {"name": f"folder:{place}"}}).encode()})
        publish(folder, read_json(folder / "config.json"), result(), 1.0)
        made = plan(None, "backbone.evaluate", from_trial=folder.name).id
        shutil.move(folder, tmp_path / f"{place.name} trial")
        return folder.name, made

    copy = Path(shutil.copytree(pics, tmp_path / 'a "copy" é'))
    assert of(pics) == of(copy)
    assert capsys.readouterr().err == ""


def test_a_trial_of_an_earlier_release_is_as_it_was_finished(plan, pics, tmp_path, capsys):
    """It says what it holds with the places of its data."""
    folder = finish(plan(f"folder:{pics}", "backbone.train"), tmp_path)
    about, said = read_json(folder / "config.json"), read_json(folder / "result.json")
    keys = ("experiment", "version", "config", "inputs", "data", "contents")
    told = {key: about[key] for key in keys} | {key: said[key] for key in ("trial", "artifacts")}
    artifacts = said["artifacts"].values()
    held = [[f"{name}/.", hashlib.sha256((folder / name).read_bytes()).hexdigest()] for name in sorted(artifacts)]
    files = hashlib.sha256("".join(map(json.dumps, held)).encode()).hexdigest()
    content = hashlib.sha256(json.dumps([told, files], sort_keys=True).encode()).hexdigest()
    assert content != said["content"]
    write_json(folder / "result.json", said | {"content": content})
    assert plan(None, "backbone.evaluate", from_trial=folder.name)
    assert capsys.readouterr().err == ""


def test_a_needed_trial_that_was_altered_since_is_not_used(plan, tmp_path):
    trial = plan("digits", "snn.convert")
    needed = Planner(Registry.discover(), tmp_path / "runs", DataSets(Registry.discover(), tmp_path)).add(
        "backbone.train", {}
    )
    folder = finish(needed, tmp_path)
    write(folder, {"model/model.safetensors": b"others"})
    begin(trial, tmp_path)
    with pytest.raises(UserError, match=f"input trained in {folder} must be as it was finished; got other files"):
        work(trial.folder, Stop())


@pytest.mark.parametrize("experiment", ["backbone.evaluate", "snn.convert"])
def test_data_taken_over_from_a_trial_are_those_it_had(plan, pics, tmp_path, experiment):
    folder = finish(plan(f"folder:{pics}", "backbone.train"), tmp_path)
    trial = plan(None, experiment, from_trial=folder.name)
    assert trial.data == read_json(folder / "config.json")["data"] != {}
    begin(trial, tmp_path)
    write(pics, {"cat/1.png": b"others"})
    with pytest.raises(UserError, match=f"folder:{pics} must be the one trial {folder.name} was made with; got other"):
        plan(None, experiment, from_trial=folder.name)
    with pytest.raises(UserError, match="planned on; got other files"):
        work(trial.folder, Stop())
    shutil.rmtree(pics)  # a result that is there already needs them no more
    assert plan(None, experiment, from_trial=folder.name).id == trial.id
    if experiment == "backbone.evaluate":
        write(pics, {"cat/1.png": b"others"})
        assert plan(f"folder:{pics}", experiment, from_trial=folder.name).id != trial.id


def test_a_dry_run_shows_what_it_can(pics, tmp_path, capsys, monkeypatch):
    from engram.benchmarks.cli import main

    monkeypatch.chdir(tmp_path)
    words = ["run", "backbone.train", "--dry-run", "--json", "--out", "here", "--dataset"]
    assert main([*words, "folder:pics"]) == main([*words, "folder:nowhere"]) == 0
    known, unknown = (json.loads(line)["trials"][0] for line in capsys.readouterr().out.splitlines())
    assert (known["status"], len(known["trial"])) == ("planned", 16)
    assert (unknown["status"], unknown["trial"]) == ("no data", None)
    assert not (tmp_path / "here").exists()
