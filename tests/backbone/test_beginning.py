"""Training that starts from another trial, or learns from one."""

from dataclasses import replace

import pytest
import torch

from engram.backbone.contract import Named
from engram.backbone.data.load import load
from engram.backbone.errors import UserError
from engram.backbone.experiments.beginning import begin, load_teacher
from engram.backbone.experiments.configs import TrainConfig
from engram.backbone.experiments.train import Train
from engram.backbone.saved.model import load_model
from engram.backbone.seeding import seed_everything

TINY = TrainConfig(
    backbone="vgg-tiny", backbone_options={"width": 0.25}, epochs=4, batch_size=32, lr=0.01, precision="fp32"
).resolved()


def run(config, services):
    config = config.resolved()
    seed_everything(config.seed)
    work = Train(config, services)
    state = work.start()
    while work.step(state):
        pass
    return work.finish(state)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, services):
    folder = tmp_path_factory.mktemp("trained")
    return folder, run(TINY, services(folder))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return load("digits", {}, root=tmp_path_factory.mktemp("data"))


def test_it_starts_where_the_other_ended(trained, services, tmp_path):
    folder, before = trained
    config = replace(TINY, from_trial="x", lr=1e-9, epochs=1, backbone_options={})
    after = run(config, services(tmp_path, {"trained": folder}))
    assert after.metrics["test/accuracy"] == pytest.approx(before.metrics["test/accuracy"], abs=0.02)
    assert load_model(tmp_path / "model")[1].backbone == load_model(folder / "model")[1].backbone


def test_an_adapter_is_added_and_calibrated(trained, services, tmp_path):
    folder, before = trained
    config = replace(TINY, from_trial="x", lr=1e-9, epochs=1, adapter="snn.qcfs", adapter_options={"levels": 16})
    after = run(config, services(tmp_path, {"trained": folder}))
    assert after.metrics["test/accuracy"] == pytest.approx(before.metrics["test/accuracy"], abs=0.03)
    (qcfs,) = load_model(tmp_path / "model")[1].adapters
    assert qcfs == Named("snn.qcfs", 1, {"levels": 16, "per": "channel", "threshold": None})
    again = replace(TINY, from_trial="x", lr=1e-9, epochs=1)
    kept = run(again, services(tmp_path / "again", {"trained": tmp_path}))
    assert kept.metrics["test/accuracy"] == pytest.approx(after.metrics["test/accuracy"], abs=0.02)
    assert load_model(tmp_path / "again" / "model")[1].adapters == (qcfs,)


def test_other_classes_get_a_head_of_their_own(trained, digits):
    data = replace(digits, classes=("x", "y"), mean=digits.mean + 0.1)
    beginning = begin(replace(TINY, from_trial="x"), data, trained[0] / "model")
    assert beginning.model.head.out_features == 2 and beginning.prepare is None
    assert torch.equal(beginning.model.normalise.mean, data.mean)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "mlp"}, r"--backbone must be that of the trial beside --from; got mlp\. Use vgg-tiny\."),
        ({"backbone_options": {"width": 2.0}}, r"--backbone\.\* must be left out beside --from"),
    ],
)
def test_another_network_is_refused(trained, digits, change, message):
    with pytest.raises(UserError, match=message):
        begin(replace(TINY, from_trial="x", **change), digits, trained[0] / "model")


def test_other_images_and_classes_are_refused(trained, digits):
    large, student = replace(digits, in_shape=(3, 9, 9)), load_model(trained[0] / "model")[0]
    message = "must be a network for images of 3x9x9; got one for 1x8x8"
    with pytest.raises(UserError, match=f"--from {message}"):
        begin(replace(TINY, from_trial="x"), large, trained[0] / "model")
    with pytest.raises(UserError, match=f"--teacher {message}"):
        load_teacher(trained[0] / "model", student, large, 0.5, 1.0)
    with pytest.raises(UserError, match="--teacher must be trained on the same classes; got 0, 1"):
        load_teacher(trained[0] / "model", student, replace(digits, classes=("a", "b")), 0.5, 1.0)


def test_a_teacher_is_learned_from(trained, services, tmp_path):
    config = replace(TINY, epochs=1)
    alone = run(config, services(tmp_path / "alone"))
    taught = run(replace(config, teacher="x"), services(tmp_path / "taught", {"teacher": trained[0]}))
    assert taught.metrics["train/loss"] != alone.metrics["train/loss"]


def test_what_is_needed_first_and_what_does_not_go_together():
    config = replace(TINY, from_trial="abc", teacher="def")
    assert {role: need.trial for role, need in config.requires().items()} == {"trained": "abc", "teacher": "def"}
    assert TINY.requires() == {} and config.problems() == []
    (problem,) = replace(TINY, temperature=4.0).problems()
    assert problem == "--temperature must be left out without a teacher; got 4.0. Add --teacher."


def test_a_trained_network_learns_at_a_fifth_of_the_rate():
    fresh, trained = TrainConfig(dataset="mnist").resolved(), TrainConfig(dataset="mnist", from_trial="x").resolved()
    assert trained.lr == pytest.approx(fresh.lr / 5)
    assert trained.resolved() == trained
    assert TrainConfig(from_trial="x", lr=0.5).resolved().lr == 0.5
