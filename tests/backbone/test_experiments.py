import copy
import shutil
from dataclasses import replace

import pytest
import torch

from engram.backbone.data.corruptions.split import corrupted
from engram.backbone.data.load import load
from engram.backbone.data.trained import load_as_trained, outputs_of
from engram.backbone.errors import UserError
from engram.backbone.experiments.configs import EvaluateConfig, TrainConfig, early_exit
from engram.backbone.experiments.evaluate import Evaluate
from engram.backbone.experiments.train import Train
from engram.backbone.measures.scoring import score
from engram.backbone.saved.model import load_model
from engram.backbone.saved.states import load_latest, save_state
from engram.backbone.seeding import seed_everything

TINY = TrainConfig.resolve(
    {"backbone": "mlp", "epochs": 8, "batch_size": 32, "optimizer": "adamw", "lr": 0.005, "precision": "fp32"}
)


def run(kind, config, services):
    """What the runner does, without interruptions."""
    seed_everything(config.seed)
    work = kind(config, services)
    state = work.start()
    while work.step(state):
        pass
    return work.finish(state)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, services):
    """A finished training on the digits: its folder, result and services."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    lent = services(folder)
    return folder, run(Train, TINY, lent), lent


@pytest.fixture
def evaluate(trained, services, tmp_path):
    def score_on(folder=None, **options):
        config = EvaluateConfig(from_trial="x", **options)
        return run(Evaluate, config, services(tmp_path, inputs={"trained": folder or trained[0]})).metrics

    return score_on


def test_training_learns_the_digits(trained):
    _, result, _ = trained
    assert result.metrics["test/accuracy"] > 0.9
    assert result.metrics["validation/accuracy"] > 0.9
    assert result.metrics["parameters"] == sum(p.numel() for p in load_model(trained[0] / "model")[0].parameters())
    stopping = {metric.name for metric in early_exit()}  # of networks with steps
    assert {metric.name for metric in TrainConfig.metrics} == set(result.metrics) | stopping


def test_what_is_reported_and_logged_agrees(trained):
    folder, result, lent = trained
    epochs = result.tables["epochs"]
    assert [row["epoch"] for row in epochs] == list(range(1, 9))
    assert [dict(row, epoch=0) for row in epochs] == [{"epoch": 0, **row} for row in lent.logged.values()]
    steps = list(lent.logged)
    assert steps == [steps[0] * epoch for epoch in range(1, 9)]
    assert result.metrics["train/loss"] == epochs[-1]["train/loss"]
    assert result.figures["loss"].series["train/loss"] == [(row["epoch"], row["train/loss"]) for row in epochs]
    assert set(result.figures) == {"loss", "accuracy", "confusion"}
    assert all((folder / path).is_file() for path in result.artifacts.values())
    assert len(lent.facts["data_sha256"]) == 64 and lent.facts["precision"] == "fp32"


def test_the_scores_are_those_of_the_saved_model(trained):
    folder, result, lent = trained
    model, made = load_model(folder / "model")
    data = load("digits", {}, root=lent.data_root)
    assert made.data.fingerprint == data.fingerprint and made.test_accuracy == result.metrics["test/accuracy"]
    for split, name in ((data.test, "test"), (data.validation, "validation")):
        again = score(model, split, "cpu")
        assert again["accuracy"] == result.metrics[f"{name}/accuracy"]
        assert again["loss"] == pytest.approx(result.metrics[f"{name}/loss"], rel=1e-5)


def test_same_seed_same_numbers(trained, services, tmp_path):
    again = run(Train, TINY, services(tmp_path))
    timed = {metric.name for metric in TrainConfig.metrics if metric.timed}
    ours, theirs = (
        {name: value for name, value in result.metrics.items() if name not in timed} for result in (again, trained[1])
    )
    assert ours == theirs
    assert again.tables == trained[1].tables


def test_kill_and_resume_gives_the_same_numbers(trained, services, tmp_path, monkeypatch):
    from engram.backbone.training.loop import Trainer

    monkeypatch.setattr(Trainer.advance, "__defaults__", (0.0,))  # a unit of work is one step
    work, lent, interruptions, more = None, services(tmp_path), 0, True
    while more:
        seed_everything(0)
        work = Train(TINY, lent)
        state = work.start()
        found = load_latest(tmp_path / "ckpt")
        if found:
            work.load_state_dict(state, found[1])
        for _ in range(100):
            more = more and work.step(state)
        save_state(tmp_path / "ckpt", interruptions, work.state_dict(state))
        interruptions += 1
    assert interruptions == 4
    result = work.finish(state)
    assert result.tables == trained[1].tables
    assert result.metrics["test/loss"] == trained[1].metrics["test/loss"]


def test_bf16_is_scored_in_fp32(services, tmp_path, evaluate):
    result = run(Train, replace(TINY, epochs=1, precision="bf16"), services(tmp_path))
    again = evaluate(tmp_path)
    assert again["test/accuracy"] == result.metrics["test/accuracy"]
    assert again["test/loss"] == pytest.approx(result.metrics["test/loss"], rel=1e-5)


def test_without_validation(services, tmp_path):
    result = run(Train, replace(TINY, epochs=1, validation=0.0, ema=0.5), services(tmp_path))
    missing = {metric.name for metric in TrainConfig.metrics} - set(result.metrics)
    assert missing == {metric.name for metric in TrainConfig.metrics if metric.optional}
    assert set(result.figures) == {"loss", "confusion"}


# --- evaluation -------------------------------------------------------------------------------------------------------


def test_evaluation_repeats_the_trained_score(trained, evaluate):
    metrics, got = trained[1].metrics, evaluate()
    assert got["test/accuracy"] == metrics["test/accuracy"] and got["images"] == 359
    assert got["test/loss"] == pytest.approx(metrics["test/loss"], rel=1e-5)
    assert evaluate(dataset="digits") == got
    assert evaluate(split="validation")["validation/accuracy"] == metrics["validation/accuracy"]
    assert evaluate(split="train")["images"] + evaluate(split="validation")["images"] + got["images"] == 1797
    assert (
        set(everything := evaluate(split="all")) == {"all/accuracy", "all/loss", "images"}
        and everything["images"] == 1797
    )


@pytest.fixture
def pictures(tmp_path):
    """The digits' test images as a folder of pictures: ``pictures(names, size)``, names by class or None to drop it."""
    from PIL import Image

    def write(names, size=8, mode="L"):
        data = load("digits", {}, root=tmp_path)
        images, labels, _ = next(data.test.batches(torch.arange(len(data.test)), 1000, "cpu"))
        where = tmp_path / "pics"
        for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            if names[label] is not None:
                (where / names[label]).mkdir(parents=True, exist_ok=True)
                picture = Image.fromarray(image[0].numpy()).resize((size, size)).convert(mode)
                picture.save(where / names[label] / f"{index}.png")
        return f"folder:{where}"

    return write


def test_corrupted_test_images_are_scored_with_the_preprocessing_of_the_training(trained, evaluate):
    model, _ = load_model(trained[0] / "model")
    data = load("digits", {}, root=trained[0])
    for kind in ("gaussian-blur", "bars"):
        found = evaluate(dataset="corrupted:digits", dataset_options={"kind": kind, "severity": 5})
        scores = score(model, corrupted(data.test, kind, 5), "cpu")
        assert (found["images"], found["test/accuracy"]) == (len(data.test), scores["accuracy"])
        assert 0.2 < scores["accuracy"] < trained[1].metrics["test/accuracy"] - 0.05


def test_a_share_of_the_training_images(services, tmp_path, evaluate):
    config = TrainConfig.resolve(
        {"backbone": "mlp", "epochs": 2, "train_share": 0.1, "seed": 3, "precision": "fp32", "batch_size": 32}
    )
    assert config.share_seed == 3
    run(Train, config, services(tmp_path))
    ref = load_model(tmp_path / "model")[1].trained_on()
    assert (ref.share, ref.share_seed) == (0.1, 3)
    assert evaluate(tmp_path, split="train")["images"] == 129
    data, _ = load_as_trained(load_model(tmp_path / "model")[1], root=tmp_path, download=False)
    assert (len(data.train), len(data.validation), len(data.test)) == (129, 144, 359)
    trained = {name: getattr(config, name) for name in ("dataset", "backbone", "train_share", "share_seed")}
    again = TrainConfig.resolve({"from_trial": "x", "seed": 8}, {"trained": trained})
    assert (again.train_share, again.share_seed) == (0.1, 3)
    whole = TrainConfig.resolve({"from_trial": "x", "train_share": 1.0}, {"trained": trained})
    assert (whole.train_share, whole.share_seed, whole.problems()) == (1.0, None, [])
    assert TrainConfig.resolve({"share_seed": 4}).problems() == [
        "--share-seed must be left out where all training images are used; got 4. Add --train-share, or leave it out."
    ]


def test_other_data_is_scored_whole_with_the_preprocessing_of_the_training(trained, evaluate, pictures):
    got = evaluate(dataset=pictures("0123456789"))
    assert got["images"] == 359
    assert got["test/accuracy"] == trained[1].metrics["test/accuracy"]
    assert got["test/loss"] == pytest.approx(trained[1].metrics["test/loss"], rel=1e-5)


def test_some_of_the_classes_are_matched_by_name(trained, evaluate, pictures):
    got = evaluate(dataset=pictures([None, None, None, "3", None, None, None, "7", None, None]))
    assert 50 < got["images"] < 90
    assert got["test/accuracy"] > 0.85  # by number it would be about zero


def test_a_class_that_was_not_trained(evaluate, pictures):
    source = pictures(["0", "1", "2", "3", "4", "5", "6", "7", "8", "x"])
    with pytest.raises(UserError, match=r"the classes must be among those trained on \(0, 1, .*\); got 'x'\."):
        evaluate(dataset=source)


@pytest.mark.parametrize(("size", "mode", "got"), [(12, "L", "1x12x12"), (8, "RGB", "3x8x8")])
def test_pictures_of_another_shape(evaluate, pictures, size, mode, got):
    source = pictures("0123456789", size, mode)
    with pytest.raises(
        UserError, match=f"must be 1x8x8 like those trained on; got {got}. Pass --dataset.size 8 --dataset.channels 1"
    ):
        evaluate(dataset=source)
    fitting = evaluate(dataset=source, dataset_options={"size": 8, "channels": 1})
    assert fitting["images"] == 359


def test_images_of_another_shape_from_a_source_that_cannot_resize(evaluate):
    with pytest.raises(UserError, match=r"must be 1x8x8 .*; got 2x16x16\. Choose a --dataset of such images") as caught:
        evaluate(dataset="moving-shapes", dataset_options={"samples": 24})
    assert "Pass" not in str(caught.value)


def test_data_trained_on_is_split_as_trained_even_when_named(services, tmp_path, pictures, evaluate):
    """Most images of a source with one split were trained on; its score must be that of the others."""
    source = pictures("0123456789")
    config = replace(TINY, dataset=source, epochs=20, batch_size=16, lr=3e-3)
    result = run(Train, config, services(tmp_path / "of-pictures"))
    for again in (evaluate(tmp_path / "of-pictures"), evaluate(tmp_path / "of-pictures", dataset=source)):
        assert again["images"] < 0.25 * 359
        assert again["test/accuracy"] == result.metrics["test/accuracy"]
    copied = f"folder:{shutil.copytree(tmp_path / 'pics', tmp_path / 'copy')}"
    assert evaluate(tmp_path / "of-pictures", dataset=copied) == again
    next((tmp_path / "pics" / "3").iterdir()).unlink()
    with pytest.raises(UserError, match="pics must be the one the network was trained on; got other bytes"):
        evaluate(tmp_path / "of-pictures")
    assert evaluate(tmp_path / "of-pictures", dataset=source)["images"] == 358


@pytest.mark.parametrize(
    ("trained_on", "got", "targets"),
    [
        ("ab", "ab", [0, 1]),
        ("abc", "ca", [2, 0]),
        ("ab", "01", [0, 1]),
        ("0123", "ab", [0, 1]),
        ("0123", "13", [1, 3]),
    ],
)
def test_classes_are_matched_by_name_or_by_number(trained_on, got, targets, made_of):
    assert outputs_of(made_of("mlp", in_shape=(1, 8, 8), classes=tuple(trained_on)), tuple(got)).tolist() == targets


@pytest.mark.parametrize(
    ("trained_on", "got"), [("ab", "ac"), ("ab", "012"), ("01", "abc"), ("ab", "cd"), ("0123", "0a")]
)
def test_classes_that_do_not_match(trained_on, got, made_of):
    with pytest.raises(UserError, match="the classes must be among those trained on"):
        outputs_of(made_of("mlp", in_shape=(1, 8, 8), classes=tuple(trained_on)), tuple(got))


def test_evaluating_nothing():
    assert "--from must be a trained trial; got nothing" in EvaluateConfig().problems()[0]
    assert EvaluateConfig(from_trial="abc").problems() == []


def test_configurations_are_not_changed_by_running(trained):
    assert TrainConfig.resolve(vars(copy.deepcopy(TINY))) == TINY
