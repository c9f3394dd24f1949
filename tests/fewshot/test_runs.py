"""Lake's one-shot runs: read, built by the same rule, and classified."""

import io
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from engram.backbone.contract import Named
from engram.backbone.data.load import open_source
from engram.backbone.data.sets import MemorySplit
from engram.backbone.errors import UserError
from engram.backbone.nets.making import build
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.backbone.saved.made import Made
from engram.backbone.saved.model import save_model
from engram.backbone.testing.workshop import Told
from engram.fewshot.oneshot.building import RULE, WAYS, built, published
from engram.fewshot.oneshot.configs import OneShotConfig
from engram.fewshot.oneshot.experiment import OneShot
from engram.fewshot.oneshot.reading import check_runs, find_runs, runs_files

CLASSES = 3


def png(value):
    """A picture as Omniglot has them, of one bit, whose first pixels say which it is."""
    pixels = np.ones((16, 16), bool)
    pixels[:8, : value + 1] = False
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def content(runs=2):
    """Name -> bytes; class k of a run is classified by item k + 1."""
    found = {}
    for run in range(1, runs + 1):
        name = f"run{run:02d}"
        lines = []
        for k in range(CLASSES):
            item, known = f"{name}/test/item{(k + 1) % CLASSES + 1:02d}.png", f"{name}/training/class{k + 1:02d}.png"
            found[item], found[known] = png(4 * run + k), png(4 * run + k)
            lines.append(f"{item} {known}\n")
        found[f"{name}/class_labels.txt"] = "".join(lines[::-1]).encode()
    return found


def write(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def packed(path, files, how=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", how) as held:
        for name, data in files.items():
            held.writestr(name, data)
    return path


@pytest.fixture(params=["folder", "all_runs", "zip", "zip with a folder"])
def place(request, tmp_path):
    files = content()
    if request.param == "folder":
        return write(tmp_path / "runs", files)
    if request.param == "all_runs":
        return write(tmp_path / "runs", {f"all_runs/{name}": data for name, data in files.items()})
    prefix = "all_runs/" if request.param == "zip with a folder" else ""
    junk = {"__MACOSX/all_runs/._run01": b"junk", "readme.txt": b"text"}
    return packed(tmp_path / "runs.zip", {f"{prefix}{name}": data for name, data in files.items()} | junk)


def opened(place, **options):
    return open_source(f"one-shot-runs:{place}", options, root=place.parent, download=False)


def test_every_picture_stands_beside_the_one_of_its_character(place):
    source = opened(place)
    images = [next(part.batches(torch.arange(6), 6, "cpu"))[0] for part in (source.train, source.test)]
    assert torch.equal(*images)  # the same drawing in both, here
    assert images[0].shape == (6, 1, 16, 16) and images[0].unique().tolist() == [0, 255]
    assert ((images[0] == 0).sum((1, 2, 3)) // 8 - 1).tolist() == [4, 5, 6, 8, 9, 10]
    assert source.classes[3] == "run02/class01" and source.test.columns["run"].tolist() == [1, 1, 1, 2, 2, 2]
    runs = published(source.train)
    assert runs.names == ("run01", "run02") and runs.drawn.support.shape == (2, 3, 1)
    assert runs.drawn.queries[1, :, 0].tolist() == [9, 10, 11]
    assert check_runs(str(place), None, root=place, download=False, training=False) == []
    assert runs_files(str(place), root=place).files


def test_pictures_become_what_those_of_the_training_set_become(tmp_path):
    drawing = write(tmp_path / "runs", content()) / "run01/test/item02.png"
    for k in range(2):  # the same file as a picture of a character
        for number in (1, 2):
            path = tmp_path / f"images_background/Greek/character0{k + 1}/000{k}_0{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(drawing, path)
    lake = open_source("omniglot", {"size": 7}, root=tmp_path, download=False).train
    ours = opened(tmp_path / "runs", size=7).train
    first = (next(split.batches(torch.zeros(1, dtype=torch.int64), 1, "cpu"))[0] for split in (lake, ours))
    assert torch.equal(*first)


BROKEN = {
    "run01/class_labels.txt": b"run01/test/item02.png run01/training/class01.png\nrun01/test/../x.png /etc/passwd\n\n"
    b"run01/test/item09.png run01/training/class02.png\nrun01/test/item02.png run01/training/class03.png",
    "run02/class_labels.txt": b"\xff\xfe",
}


def test_bad_lines_are_named_with_their_numbers_all_at_once(tmp_path):
    place = write(tmp_path / "runs", {**content(), **BROKEN})
    lines = check_runs(str(place), None, root=tmp_path, download=False, training=False)
    labels = place / "run01/class_labels.txt"
    rule = "'run01/test/itemMM.png run01/training/classKK.png'"
    assert lines == [
        f"line 2 of {labels} must be {rule}; got 'run01/test/../x.png /etc/passwd'. Mend it.",
        f"line 4 of {labels} must be of pictures that are there; got no run01/test/item09.png. Restore it.",
        f"every picture to classify of {labels} must be in one line; got run01/test/item02.png in several. "
        "Mend the list.",
        f"{place / 'run02/class_labels.txt'} must be a text; got bytes that are none. Take it from where it came.",
    ]
    with pytest.raises(UserError) as error:
        find_runs(str(place))
    assert len(str(error.value).splitlines()) == 4


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"picture.png": png(1)}, "one-shot-runs:PATH must be runs with class_labels.txt; got none in "),
        (
            {**content(), "run02/class_labels.txt": b"run02/test/item02.png run02/training/class01.png\n"},
            "the classes of ",
        ),
        ({**content(), **{f"old/{name}": data for name, data in content(3).items() if "run03" in name}}, "every run"),
        ({**content(1), "run01/class_labels.txt": b"x" * 2**17}, "a file of a run must be at most 65,536 bytes"),
    ],
)
def test_what_are_no_runs_is_refused(tmp_path, files, said):
    with pytest.raises(UserError) as error:
        find_runs(str(packed(tmp_path / "runs.zip", files)))
    assert str(error.value).startswith(said)


def test_bombs_and_damaged_zip_files_are_refused(tmp_path):
    name = "run01/test/item02.png"
    bomb = packed(tmp_path / "bomb.zip", {**content(), name: bytes(2**24)})
    assert bomb.stat().st_size < 2**15
    lines = check_runs(str(bomb), None, root=tmp_path, download=False, training=False)
    assert lines == [
        f"a file of a run must be at most 1,048,576 bytes; got more in {bomb}/{name}. "
        "Take it from where the runs are published."
    ]
    data = bytearray(packed(tmp_path / "bad.zip", content(), zipfile.ZIP_STORED).read_bytes())
    place = data.index(b"IHDR") + 10
    data[place] ^= 0xFF
    (tmp_path / "bad.zip").write_bytes(data)
    assert "Bad CRC-32" in check_runs(str(tmp_path / "bad.zip"), None, root=tmp_path, download=False, training=False)[0]
    (tmp_path / "cut.zip").write_bytes(bytes(data[:200]))
    with pytest.raises(UserError, match="a zip file of runs must be a whole one"):
        find_runs(str(tmp_path / "cut.zip"))
    with pytest.raises(UserError, match="a folder or a zip file; got nothing at"):
        find_runs(str(tmp_path / "nowhere"))


def test_whatever_is_in_a_zip_file_is_read_or_refused(tmp_path):
    whole, noise = packed(tmp_path / "whole.zip", content(1)).read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        for place in noise.integers(len(data), size=noise.integers(1, 6)):
            data[place] = noise.integers(256)
        (tmp_path / "x.zip").write_bytes(bytes(data[: noise.integers(len(data) // 2, len(data) + 1)]))
        refused += bool(check_runs(str(tmp_path / "x.zip"), None, root=tmp_path, download=False, training=False))
    assert refused > 40


def drawings(alphabets=(("A", 25), ("B", 20), ("C", 19)), writers=4, missing=()):
    rows = [
        (alphabet, f"character{k:02d}", writer)
        for alphabet, count in alphabets
        for k in range(count)
        for writer in range(1, writers + 1)
        if (alphabet, k, writer) not in missing
    ]
    names = sorted({row[:2] for row in rows})
    columns = {
        "alphabet": tuple(row[0] for row in rows),
        "character": tuple(row[1] for row in rows),
        "writer": torch.tensor([row[2] for row in rows]),
    }
    labels = torch.tensor([names.index(row[:2]) for row in rows])
    return MemorySplit(torch.zeros(len(rows), 1, 2, 2, dtype=torch.uint8), labels, columns)


def test_runs_are_built_by_the_rule():
    split = drawings()
    runs = built(split, 40, seed=0)
    assert runs.protocol == RULE and len(runs.drawn) == 40 and sorted(set(runs.names)) == ["A", "B"]
    assert runs.names[0] != runs.names[1] and runs.names.count("A") == 20
    for name, known, asked in zip(runs.names, runs.drawn.support[..., 0], runs.drawn.queries[..., 0], strict=True):
        assert len(known) == WAYS and torch.equal(split.labels[known], split.labels[asked])
        assert len(split.labels[known].unique()) == WAYS
        assert {split.columns["alphabet"][i] for i in known.tolist() + asked.tolist()} == {name}
        writers = [split.columns["writer"][rows].unique().tolist() for rows in (known, asked)]
        assert len(writers[0]) == len(writers[1]) == 1 and writers[0] != writers[1]
    again = built(split, 7, seed=0)
    assert torch.equal(again.drawn.queries, runs.drawn.queries[:7]) and again.names == runs.names[:7]
    assert not torch.equal(built(split, 7, seed=1).drawn.queries, again.drawn.queries)


def test_of_quarter_turns_the_upright_one_and_of_writers_those_of_all_characters():
    split = drawings((("A", 20),), missing={("A", 3, 2)})
    turned = MemorySplit(
        split.images.repeat(4, 1, 1, 1),
        torch.cat([4 * split.labels + turn for turn in range(4)]),
        {name: c.repeat(4) if isinstance(c, torch.Tensor) else c * 4 for name, c in split.columns.items()},
    )
    runs = built(turned, 20, seed=0)
    shown = torch.cat((runs.drawn.support, runs.drawn.queries), 2)
    assert (turned.labels[shown] % 4 == 0).all() and 2 not in turned.columns["writer"][shown].unique()


def test_what_cannot_be_built_from_is_said():
    split = drawings()
    less = MemorySplit(split.images, split.labels, {"alphabet": split.columns["alphabet"]})
    with pytest.raises(UserError, match="alphabet, character, writer; got none called character, writer"):
        built(less, 2, 0)
    with pytest.raises(UserError, match="of an alphabet with 20 characters that two writers drew all of; got none"):
        built(drawings((("A", 19),)), 2, 0)


@pytest.fixture
def network(tmp_path):
    torch.manual_seed(0)
    model = build("mlp", {"units": 16}, (1, 14, 14), 2, torch.tensor([0.9]), torch.tensor([0.3]))
    made = Made(
        backbone=in_full(Registry.discover(), "backbones", "mlp", {"units": 16}),
        head=Named("linear", 1, {}),
        classes=("x", "y"),
        in_shape=(1, 14, 14),
    )
    save_model(tmp_path / "trained" / "model", model, made)
    return tmp_path / "trained"


@pytest.fixture
def begun(network, tmp_path):
    def make(inherited=None, **given):
        config = OneShotConfig.resolve({"from_trial": "x", **given}, {"trained": inherited or {}})
        assert not config.problems()
        folder = tmp_path / f"trial{len([*tmp_path.glob('trial*')])}"
        folder.mkdir()
        return OneShot(config, Told(folder, tmp_path, {"trained": network}))

    return make


def whole(work):
    state = work.start()
    while work.step(state):
        pass
    return work.finish(state)


def test_equal_drawings_are_found_and_others_are_errors(begun, tmp_path):
    place = write(tmp_path / "runs", content())
    trained = {"dataset": "omniglot", "dataset_options": {"size": 14, "split": "lake"}}
    result = whole(begun(trained, dataset=f"one-shot-runs:{place}"))  # as large as the network was trained
    assert result.metrics == {"test/accuracy": 1.0, "test/accuracy/ci95": 0.0, "runs": 2.0}
    swapped = content()
    items = [f"run02/test/item0{k}.png" for k in (1, 2)]
    swapped[items[0]], swapped[items[1]] = swapped[items[1]], swapped[items[0]]
    other = write(tmp_path / "swapped", swapped)
    result = whole(begun(trained, dataset=f"one-shot-runs:{other}"))
    assert result.metrics["test/accuracy"] == pytest.approx(1 - 2 / 6)
    assert [row["errors"] for row in result.tables["runs"]] == [0, 2]
    assert len(result.figures["mistakes"].pictures) == 2 and result.figures["errors"].names == ["run02", "run01"]
    assert result.metrics["test/accuracy/ci95"] == pytest.approx(1.96 * (2 / 3) / 2)


GLYPHS = {"dataset": "glyphs", "dataset_options": {"classes": 2, "held_out": 25, "drawings": 4, "size": 14}}


def test_killed_after_any_unit_it_comes_to_the_same(begun, monkeypatch):
    monkeypatch.setattr("engram.fewshot.oneshot.experiment.AT_ONCE", 2)
    work = begun(**GLYPHS, runs=6, split="validation")
    once = whole(work)
    assert 0.05 < once.metrics["validation/accuracy"] < 1 and len(once.tables["runs"]) == 6
    state = work.start()
    for _ in range(3):
        work.step(state)
    again = work.start()
    work.load_state_dict(again, work.state_dict(state))
    assert len(again.answers) == 4
    while work.step(again):
        pass
    assert work.finish(again).metrics == once.metrics
    more = whole(begun(**GLYPHS, runs=6, split="validation", head="fewshot.matching"))
    assert set(more.metrics) == set(once.metrics)


def test_options_that_do_not_go_together():
    runs = {"from_trial": "x", "dataset": "one-shot-runs:x"}
    found = OneShotConfig.resolve({**runs, "runs": 3, "split": "validation"}).problems()
    assert [line.split(" must be")[0] for line in found] == ["--runs", "--split"]
    assert OneShotConfig.resolve(runs).runs is None and OneShotConfig.resolve({"from_trial": "x"}).runs == 400
