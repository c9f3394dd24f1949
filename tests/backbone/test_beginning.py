"""Training that starts from another trial, or learns from one."""

from dataclasses import replace

import pytest
import torch

from engram.backbone.contract import Named
from engram.backbone.data.load import load
from engram.backbone.data.trained import outputs_of
from engram.backbone.data.views import seen
from engram.backbone.errors import UserError
from engram.backbone.experiments.beginning import begin, load_teacher
from engram.backbone.experiments.configs import TrainConfig
from engram.backbone.experiments.train import Train
from engram.backbone.measures.scoring import score
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.backbone.saved.model import load_model
from engram.backbone.seeding import seed_everything
from engram.snn.conversion.configs import ConvertConfig
from engram.snn.conversion.experiment import Convert
from engram.snn.training.configs import SpikingTrainConfig
from engram.snn.training.experiment import SpikingTrain

TINY = TrainConfig.resolve(
    {
        "backbone": "vgg-tiny",
        "backbone_options": {"width": 0.25},
        "epochs": 4,
        "batch_size": 32,
        "lr": 0.01,
        "precision": "fp32",
    }
)


def run(config, services):
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
    config = replace(
        TINY, from_trial="x", lr=1e-9, epochs=1, adapter=("snn.qcfs",), adapter_options={"qcfs.levels": 16}
    )
    after = run(config, services(tmp_path, {"trained": folder}))
    assert after.metrics["test/accuracy"] == pytest.approx(before.metrics["test/accuracy"], abs=0.03)
    (qcfs,) = load_model(tmp_path / "model")[1].adapters
    assert qcfs == Named("snn.qcfs", 1, {"levels": 16, "per": "channel", "threshold": None})
    again = replace(TINY, from_trial="x", lr=1e-9, epochs=1)
    kept = run(again, services(tmp_path / "again", {"trained": tmp_path}))
    assert kept.metrics["test/accuracy"] == pytest.approx(after.metrics["test/accuracy"], abs=0.02)
    assert load_model(tmp_path / "again" / "model")[1].adapters == (qcfs,)


def shuffled(digits):
    """The digits as another source has them: classes in another order, and the last one missing."""
    order = torch.tensor([4, 7, 0, 2, 8, 1, 6, 3, 5])
    table = torch.full((10,), -1)
    table[order] = torch.arange(9)
    parts = {}
    for name in ("train", "validation", "test"):
        split = getattr(digits, name)
        there = (split.labels != 9).nonzero().squeeze(1)
        parts[name] = seen(split.select(there), table)
    return replace(digits, classes=tuple(digits.classes[k] for k in order), fingerprint="f" * 64, **parts)


def test_classes_that_it_knows_keep_their_outputs(trained, digits):
    """Whatever their order, and whether all of them come: it is scored there as it is scored by evaluate."""
    other, (before, made) = shuffled(digits), load_model(trained[0] / "model")
    beginning = begin(replace(TINY, from_trial="x"), other, {"trained": trained[0]})
    assert torch.equal(beginning.model.head.weight, before.head.weight)
    assert beginning.data.classes == made.classes and beginning.meanings == () and beginning.view is None
    model = beginning.model.eval()
    wanted = score(before, other.test, "cpu", targets=outputs_of(made, other.classes))
    assert score(model, beginning.data.test, "cpu") == wanted and wanted["accuracy"] > 0.6
    names = [made.classes[label] for label in beginning.data.train.labels.tolist()]
    assert names == [other.classes[label] for label in other.train.labels.tolist()]
    again = begin(replace(TINY, from_trial="x"), digits, {"trained": trained[0]})
    assert again.data.train is digits.train


def test_a_teacher_answers_in_the_order_of_its_students_classes(trained, digits):
    other = shuffled(digits)
    teacher, outputs = load_teacher(trained[0] / "model", other, "digits")
    assert outputs.tolist() == [digits.classes.index(name) for name in other.classes]
    assert torch.equal(teacher.head.weight, load_model(trained[0] / "model")[0].head.weight)


def test_a_head_is_trained_saved_kept_and_replaced(trained, digits, services, tmp_path):
    config = replace(TINY, head="cosine", head_options={"scale": 6.0}, epochs=1)
    after = run(config, services(tmp_path))
    model, made = load_model(tmp_path / "model")
    assert made.head == Named("cosine", 1, {"scale": 6.0, "learn_scale": False}) and model.head.scale == 6.0
    assert score(model, digits.test, "cpu")["accuracy"] == after.metrics["test/accuracy"]
    kept = begin(replace(TINY, from_trial="x"), digits, {"trained": tmp_path})
    assert kept.head == made.head and torch.equal(kept.model.head.weight, model.head.weight)
    for name in ("linear", "cosine"):
        asked = in_full(Registry.discover(), "heads", name, {})
        fresh = begin(replace(TINY, from_trial="x"), digits, {"trained": tmp_path}, asked)
        assert fresh.head == asked
        assert not torch.equal(fresh.model.head.weight, model.head.weight)
    other = begin(replace(TINY, from_trial="x"), replace(digits, classes=("x", "y")), {"trained": tmp_path})
    assert other.model.head.scale == 6.0 and other.model.head.weight.shape[0] == 2
    spiking = SpikingTrainConfig.resolve({"backbone": "vgg-tiny", "from_trial": "x", "precision": "fp32"})
    for refused in (
        SpikingTrain(spiking, services(tmp_path / "no", {"trained": tmp_path})),
        Convert(ConvertConfig.resolve({"from_trial": "x"}), services(tmp_path / "no", {"trained": tmp_path})),
    ):
        with pytest.raises(
            UserError, match=r"head \(Cosine\).*has to be linear|head for snn.train must be one with a linear form"
        ):
            refused.start()


@pytest.mark.parametrize("config", [SpikingTrainConfig, ConvertConfig])
def test_a_head_that_cannot_be_linear_is_refused_while_planning(config):
    (problem,) = config.resolve({"head": "cosine"}).problems()
    assert problem.startswith("--head must be one with a linear form for snn.") and "got cosine." in problem
    assert config.resolve({}).problems() == [] and TrainConfig.resolve({"head": "cosine"}).problems() == []


def test_other_classes_get_a_head_of_their_own(trained, digits):
    data = replace(digits, classes=("x", "y"), mean=digits.mean + 0.1)
    beginning = begin(replace(TINY, from_trial="x"), data, {"trained": trained[0]})
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
        begin(replace(TINY, from_trial="x", **change), digits, {"trained": trained[0]})


def test_other_images_and_classes_are_refused(trained, digits):
    large = replace(digits, in_shape=(3, 9, 9))
    message = "must be 1x8x8 like those trained on; got 3x9x9. Choose a --dataset of such images"
    with pytest.raises(UserError, match=f"images for the network of --from {message}"):
        begin(replace(TINY, from_trial="x"), large, {"trained": trained[0]})
    with pytest.raises(UserError, match=f"images for the network of --teacher {message}"):
        load_teacher(trained[0] / "model", large, "digits")
    for others in (("a", "b"), ("9", "ten")):  # classes without a common name are not matched by number here
        with pytest.raises(UserError, match=r"the classes must be among those trained on \(0, 1"):
            load_teacher(trained[0] / "model", replace(digits, classes=others), "digits")


def test_a_teacher_is_learned_from(trained, services, tmp_path):
    config = replace(TINY, epochs=1)
    alone = run(config, services(tmp_path / "alone"))
    taught = run(replace(config, teacher="x"), services(tmp_path / "taught", {"teacher": trained[0]}))
    assert taught.metrics["train/loss"] != alone.metrics["train/loss"]


def test_what_is_needed_first_and_what_does_not_go_together():
    assert TINY.requires() == {} and TINY.problems() == []
    (problem,) = replace(TINY, temperature=4.0).problems()
    assert problem == "--temperature must be left out without a teacher; got 4.0. Add --teacher."


def test_a_trained_network_learns_at_a_fifth_of_the_rate():
    fresh = TrainConfig.resolve({"dataset": "mnist"})
    trained = TrainConfig.resolve({"dataset": "mnist", "from_trial": "x"})
    assert trained.lr == pytest.approx(fresh.lr / 5)
    assert TrainConfig.resolve(vars(trained)) == trained
    assert TrainConfig.resolve({"from_trial": "x", "lr": 0.5}).lr == 0.5
