"""Images that stand in two splits."""

from functools import partial
from pathlib import Path

import pytest

from engram.backbone.data import load as module
from engram.backbone.data.load import load, load_for_scoring
from engram.backbone.errors import UserError
from engram.backbone.experiments.configs import TrainConfig
from engram.backbone.experiments.train import Train
from engram.backbone.registry import Registry

NOWHERE = Path("nowhere")


@pytest.fixture(params=["folder", "parquet"])
def overlapping(request, folder, table, images, png):
    """20 training and 6 test images, of which two and a third in another file format stand in both."""
    if request.param == "parquet":
        made = images(24, (8, 8, 3))
        train = [png(image) for image in made[:20]]
        test = [*train[:2], png(made[5], "BMP"), *(png(image) for image in made[21:])]
        table("train.parquet", labels=(0, 1) * 10, blobs=train)
        return f"parquet:{table('test.parquet', labels=(0, 1) * 3, blobs=test).parent}"
    where = folder({"train/a": 10, "train/b": 10, "test/a": 3, "test/b": 3})
    for old, new in (("a/000.png", "a/000.png"), ("a/001.png", "b/000.png")):
        (where / "test" / new).write_bytes((where / "train" / old).read_bytes())
    (where / "test" / "a" / "002.bmp").write_bytes(png(images(10, seed=0)[5], "BMP"))
    (where / "test" / "a" / "002.png").unlink()
    return f"folder:{where}"


def test_they_are_counted_by_their_pixels_and_kept(overlapping):
    data = load(overlapping, {}, root=NOWHERE, validation=0.2)
    assert dict(data.facts) == {"test_images_in_train": 3, "validation_images_in_train": 0}
    [caution] = data.cautions
    assert caution.startswith("3 of 6 test images stand among the training images too, pixel for pixel")
    assert "--dataset.duplicates drop" in caution
    assert (len(data.train), len(data.validation), len(data.test)) == (16, 4, 6)


def test_they_are_dropped_from_what_is_trained_on(overlapping, monkeypatch):
    kept = load(overlapping, {}, root=NOWHERE, validation=0)
    for budget in (2**30, 0):
        monkeypatch.setattr(module, "BUDGET_BYTES", budget)
        data = load(overlapping, {"duplicates": "drop"}, root=NOWHERE, validation=0)
        assert (len(data.train), len(data.test)) == (17, 6)
        assert dict(data.facts) == {"test_images_in_train": 0, "train_images_in_test_dropped": 3}
        assert data.cautions == ("3 training images are left out: they stand in the test set, pixel for pixel.",)
        assert len(kept.train) == 20
        again, _, _ = load_for_scoring(overlapping, {"duplicates": "drop"}, root=NOWHERE, split="train", validation=0)
        assert len(again) == 17


def test_they_are_refused(overlapping):
    message = "the test set must be apart from the training images; got 3 of its 6 images among the training images."
    with pytest.raises(UserError, match=message):
        load(overlapping, {"duplicates": "refuse"}, root=NOWHERE)
    look = partial(Registry.discover().problems, overlapping, root=NOWHERE, download=False, training=True)
    assert look({}) == look({"duplicates": "drop"}) == []
    [problem] = look({"duplicates": "refuse"})  # before any trial starts
    assert problem.startswith(message)


@pytest.mark.parametrize("choice", ["keep", "drop", "refuse"])
def test_without_any_the_choice_changes_nothing(folder, choice):
    where = folder({"train/a": 10, "train/b": 10, "test/a": 3, "test/b": 3})
    data = load(f"folder:{where}", {"duplicates": choice}, root=NOWHERE)
    assert dict(data.facts) == {"test_images_in_train": 0, "validation_images_in_train": 0}
    assert (len(data.train), data.cautions) == (18, ())


def test_splits_made_here_have_them_too(folder):
    """Every picture of one class is the same, so that whatever is held out is trained on."""
    where = folder({"a": 20, "b": 20})
    for path in (where / "a").iterdir():
        path.write_bytes((where / "a" / "000.png").read_bytes())
    data = load(f"folder:{where}", {}, root=NOWHERE, validation=0.25)
    assert dict(data.facts) == {"test_images_in_train": 4, "validation_images_in_train": 4}
    assert [caution.partition(" images")[0] for caution in data.cautions] == ["4 of 8 test", "4 of 8 validation"]
    with pytest.raises(UserError, match=r"every class of .* in the train set; got no image of 'a'"):
        load(f"folder:{where}", {"duplicates": "drop"}, root=NOWHERE)


def test_a_camera_sees_them_too(folder):
    where = folder({"train/a": 3, "train/b": 3, "test/a": 1})
    (where / "test" / "a" / "000.png").write_bytes((where / "train" / "b" / "000.png").read_bytes())
    data = load(f"saccades:folder:{where}", {}, root=NOWHERE, validation=0)
    assert dict(data.facts) == {"test_images_in_train": 1}


def test_sets_in_memory_are_not_looked_through():
    data = load("digits", {}, root=NOWHERE)
    assert (data.facts, data.cautions) == ({}, ())


def test_a_training_says_so(overlapping, services, tmp_path):
    shown = []
    lent = services(tmp_path)
    lent.table = lambda title, rows: shown.append((title, rows))
    work = Train(TrainConfig.resolve({"dataset": overlapping, "backbone": "mlp", "epochs": 1}), lent)
    state = work.start()
    assert lent.facts["test_images_in_train"] == 3
    [(_, [row])] = [table for table in shown if table[0] == "caution"]
    while work.step(state):
        pass
    assert work.finish(state).tables["cautions"] == [row]
