"""The experiment snn.train: learning from scratch, from a trained network and from a teacher, and what it reports."""

import copy
import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from engram.backbone.contract import Named
from engram.backbone.data.sets import Data, MemorySplit
from engram.backbone.errors import UserError
from engram.backbone.experiments.beginning import begin
from engram.backbone.experiments.configs import EvaluateConfig, TrainConfig
from engram.backbone.experiments.evaluate import Evaluate
from engram.backbone.experiments.train import Train
from engram.backbone.nets.folding import bake, fold_batchnorm
from engram.backbone.nets.making import build
from engram.backbone.saved.model import load_model
from engram.backbone.seeding import seed_everything
from engram.snn.simulation.counting import synapses
from engram.snn.training.configs import SpikingTrainConfig
from engram.snn.training.experiment import SpikingTrain
from engram.snn.training.options import SpikingOptions
from engram.snn.training.survey import Survey

NET = {"backbone": "mlp", "backbone_options": {"width": 0.25}}
CONFIG = SpikingTrainConfig.resolve({**NET, "steps": 3, "epochs": 6, "batch_size": 32, "precision": "fp32"})


def run(kind, config, services):
    assert config.problems() == []
    seed_everything(config.seed)
    work = kind(config, services)
    state = work.start()
    while work.step(state):
        pass
    return work.finish(state)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def made(tmp_path_factory, services):
    """A finished training from scratch: its folder, result and services."""
    lent = services(tmp_path_factory.mktemp("spiking"), {})
    return lent.trial_dir, run(SpikingTrain, CONFIG, lent), lent


@pytest.fixture(scope="module")
def analog(tmp_path_factory, services):
    """Two analog networks, ReLU and QCFS: their folders."""
    plain = TrainConfig.resolve({**NET, "epochs": 6, "batch_size": 32, "precision": "fp32"})
    folders = {}
    for name, adapter in (("relu", ()), ("qcfs", ("snn.qcfs",))):
        folders[name] = tmp_path_factory.mktemp(name)
        run(Train, replace(plain, adapter=adapter), services(folders[name], {}))
    return folders


def test_it_learns_the_digits_and_reports_what_it_declares(made):
    folder, result, lent = made
    assert set(result.metrics) == {metric.name for metric in SpikingTrainConfig.metrics}
    assert all(math.isfinite(value) for value in result.metrics.values())
    assert result.metrics["test/accuracy"] > 0.95
    curve, layers = result.tables["accuracy_vs_steps"], result.tables["layers"]
    assert [row["steps"] for row in curve] == [1, 2, 3]
    assert curve[-1]["accuracy"] == result.metrics["test/accuracy"]
    assert [row["layer"] for row in layers] == ["tail.2", "tail.4"]
    assert sum(row["synaptic_operations"] for row in layers) == pytest.approx(result.metrics["synaptic_operations"])
    assert all(0 < row["firing_rate"] < 1 and 0 <= row["silent_share"] < 1 for row in layers)
    assert set(result.figures) >= {"loss", "accuracy", "accuracy_vs_steps", "early_exit", "operations_vs_steps"}
    assert curve[-1]["validation_accuracy"] == result.metrics["validation/accuracy"]
    assert len(lent.logged) == 6 and lent.facts["precision"] == "fp32"
    assert all((folder / path).is_file() for path in result.artifacts.values())
    (shown,) = lent.tables.values()
    verdicts = {row["layer"]: row["verdict"] for row in shown}
    assert verdicts["tail.1"] == "kept (linear)" and verdicts["tail.2"] == verdicts["tail.4"] == "spiking neuron"


def test_what_it_saves_is_evaluated_like_any_network(made, services, tmp_path):
    folder, result, _ = made
    (step,) = load_model(folder / "model")[1].adapters
    assert step.name == "snn.spiking" and step.options == asdict(SpikingOptions(decay=0.5, slope=2.0, steps=3))
    again = run(Evaluate, EvaluateConfig(from_trial="x"), services(tmp_path, {"trained": folder}))
    assert again.metrics["test/accuracy"] == result.metrics["test/accuracy"]
    for name, columns in (("accuracy_vs_steps", ("steps", "accuracy")), ("early_exit", ("threshold", "mean_steps"))):
        for row, before in zip(again.tables[name], result.tables[name], strict=True):
            assert [row[column] for column in columns] == [before[column] for column in columns]
    assert again.figures["early_exit"] == result.figures["early_exit"]
    assert again.tables["fewest_steps"] == result.tables["fewest_steps"]  # chosen on the same validation images
    assert again.metrics["test/loss"] == pytest.approx(result.metrics["test/loss"], rel=1e-5)


def test_the_adapter_in_backbone_train_is_the_same_network(made, services, tmp_path):
    spikes = {"adapter": ("snn.spiking",), "adapter_options": {"spiking.steps": 3}}
    plain = TrainConfig.resolve({**NET, **spikes, "epochs": 6, "batch_size": 32, "precision": "fp32"})
    same, ours = run(Train, plain, services(tmp_path, {})), made[1]
    assert same.metrics["test/loss"] == pytest.approx(ours.metrics["test/loss"], rel=1e-6)
    columns = ("steps", "accuracy", "validation_accuracy")
    told = [[[row[name] for name in columns] for row in each.tables["accuracy_vs_steps"]] for each in (same, ours)]
    assert told[0] == told[1] and same.tables["early_exit"] == ours.tables["early_exit"]


@pytest.mark.parametrize("kind", ["relu", "qcfs"])
def test_from_a_trained_network_it_begins_as_the_converted_one(analog, services, tmp_path, kind):
    config = replace(CONFIG, from_trial="x", steps=8, epochs=1, lr=1e-9)
    lent = services(tmp_path, {"trained": analog[kind]})
    result = run(SpikingTrain, config, lent)
    analog_accuracy = load_model(analog[kind] / "model")[1].test_accuracy
    assert result.metrics["test/accuracy"] > analog_accuracy - 0.05
    names = [adapter.name for adapter in load_model(tmp_path / "model")[1].adapters]
    assert names == (["snn.spiking"] if kind == "relu" else ["snn.qcfs", "snn.spiking"])
    assert run(Evaluate, EvaluateConfig(from_trial="x"), services(tmp_path, {"trained": tmp_path})).metrics[
        "test/accuracy"
    ] == pytest.approx(result.metrics["test/accuracy"])


def test_fine_tuning_from_a_trained_network_gains_at_few_steps(analog, services, tmp_path):
    config = replace(CONFIG, from_trial="x", steps=1, epochs=3)
    before, after = (
        run(SpikingTrain, replace(config, lr=lr), services(tmp_path / name, {"trained": analog["relu"]})).metrics
        for name, lr in (("before", 1e-9), ("after", CONFIG.lr / 5))
    )
    assert after["test/loss"] < 0.95 * before["test/loss"]  # where it begins, few of the images are left to gain
    assert after["test/accuracy"] >= before["test/accuracy"]


def test_a_teacher_changes_what_is_learned(analog, services, tmp_path):
    config = replace(CONFIG, epochs=2, teacher="x", distill=1.0)
    alone = run(SpikingTrain, replace(config, teacher=None, distill=0.5), services(tmp_path / "alone", {}))
    taught = run(SpikingTrain, config, services(tmp_path / "taught", {"teacher": analog["relu"]}))
    assert taught.metrics["test/loss"] != alone.metrics["test/loss"]
    assert taught.metrics["test/accuracy"] > 0.5  # from the teacher's outputs alone, without a label


def test_a_network_with_neurons_is_not_given_others(made, services, tmp_path):
    config = replace(CONFIG, from_trial="x")
    with pytest.raises(UserError, match=r"the network for snn\.train must be one without neurons so far"):
        SpikingTrain(config, services(tmp_path, {"trained": made[0]})).start()


def test_training_goes_on_with_the_same_neurons(made, services, tmp_path):
    config = TrainConfig.resolve({"backbone": "mlp", "from_trial": "x", "epochs": 1, "lr": 1e-9, "precision": "fp32"})
    result = run(Train, config, services(tmp_path, {"trained": made[0]}))
    assert result.metrics["test/accuracy"] == pytest.approx(made[1].metrics["test/accuracy"], abs=0.02)


# --- options ----------------------------------------------------------------------------------------------------------


def test_options_of_neurons_are_checked_and_resolved():
    assert SpikingTrainConfig.resolve({}).neurons().items() >= {"decay": 0.5, "slope": 2.0}.items()
    hybrid = SpikingTrainConfig.resolve({"from_trial": "x"})
    assert (hybrid.neuron, hybrid.start, hybrid.learn_scale) == ("if", 0.5, True)
    assert hybrid.lr == pytest.approx(0.2 * SpikingTrainConfig.resolve({}).lr)
    (problem,) = SpikingTrainConfig.resolve({"neuron": "if", "decay": 0.5}).problems()
    assert problem.startswith("--decay must be left out for neuron if; got 0.5.")
    (problem,) = SpikingTrainConfig.resolve({"distill": 0.1}).problems()
    assert problem.startswith("--distill must be left out without a teacher")


# --- counting ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def classifier():
    """An untrained network with spikes in all its layers, its statistics those of some batches."""
    torch.manual_seed(0)
    adapters = [Named("snn.spiking", 1, {"steps": 3, "decay": 0.9})]
    model = build("vgg-tiny", {"width": 0.5}, (1, 8, 8), 10, torch.zeros(1), torch.ones(1), adapters=adapters)
    model.train()(torch.rand(64, 1, 8, 8))
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.constant_(norm.weight, 3.0)
    return model.eval()


@torch.no_grad()
def test_the_survey_counts_every_spike_and_synapse(classifier):
    images, labels, spikes = torch.rand(50, 1, 8, 8), torch.arange(50) % 10, {}
    survey = Survey(classifier, 3)
    survey.add(images, labels)
    survey.add(images[:10], labels[:10])
    both = torch.cat([images, images[:10]])
    neurons = [f"graph.{name}" for name in classifier.backbone.neurons()]

    def keep(site, value):
        if site.name in neurons:
            spikes[site.name] = value
        return value

    classifier.backbone.forward_steps(classifier.normalise(both), keep)
    curve, layers = survey.curve(), survey.layers()
    assert curve[0]["spikes"] == sum(float(s[0].sum()) for s in spikes.values()) / 60
    assert curve[-1]["spikes"] == sum(float(s.sum()) for s in spikes.values()) / 60
    for row, s in zip(layers, spikes.values(), strict=True):
        assert row["firing_rate"] == pytest.approx(float(s.mean())) and s.any()
        assert row["silent_share"] == pytest.approx(float((s.sum((0, 1)) == 0).float().mean()))
        assert row["saturated_share"] == pytest.approx(float((s.sum(0) == 3).float().mean()))
    right = classifier(both).argmax(1) == torch.cat([labels, labels[:10]])
    assert survey.answers.scores.correct[-1] == right.sum()
    fan_out = survey.structure.fan_out["body.2.2"]  # [32, 2, 2], to ten classes through pools to 1 x 1
    assert torch.equal(fan_out, torch.full_like(fan_out, 10.0))


def test_normalisation_and_composed_layers_count_as_folded(classifier):
    """The network as it is trained, and the one it is for inference: the same neurons, plain layers, no BatchNorm."""
    graph, before = classifier.backbone.graph, copy.deepcopy(classifier.state_dict())
    structure = synapses(graph, classifier.head, (1, 8, 8))
    plain = synapses(fold_batchnorm(bake(copy.deepcopy(graph))), classifier.head, (1, 8, 8))
    assert structure.fan_out.keys() == plain.fan_out.keys()
    assert all(torch.equal(structure.fan_out[name], fan_out) for name, fan_out in plain.fan_out.items())
    assert (structure.macs, structure.analog_macs) == (plain.macs, plain.analog_macs)
    assert structure.macs > structure.analog_macs == 8 * (3 * 8 - 2) ** 2  # 8 kernels of 3x3 on 8x8, borders cut
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


# --- recordings -------------------------------------------------------------------------------------------------------


def recordings(count, seed):
    """A bar that moves right (class 0) or left (1): one frame tells nothing, and its speed hides where it ends."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=generator)
    start = torch.randint(0, 8, (count,), generator=generator)
    frames = torch.zeros(count, 6, 2, 8, 8, dtype=torch.uint8)
    for t in range(6):
        column = (start + t * (1 - 2 * labels)) % 8
        frames[torch.arange(count), t, 0, :, column] = 255
        frames[torch.arange(count), t, 1, :, (column - 1 + 2 * labels) % 8] = 128
    return MemorySplit(frames, labels)


def test_recordings_train_one_frame_a_step(services, tmp_path, monkeypatch):
    train, test = recordings(256, 0), recordings(64, 1)
    data = Data(
        *("moving", train, None, test, ("right", "left"), (2, 8, 8)),
        *(torch.full((2,), 0.1), torch.full((2,), 0.25), "sha", 6),
    )
    monkeypatch.setattr("engram.backbone.experiments.train.load", lambda *_, **__: data)
    vgg = {"backbone": "vgg-tiny", "backbone_options": {"width": 0.25}}
    config = replace(CONFIG, **vgg, validation=0.0, translate=1, checkpoint_steps=4, epochs=4)
    result = run(SpikingTrain, config, services(tmp_path, {}))
    assert result.metrics["test/accuracy"] > 0.9
    assert [row["steps"] for row in result.tables["accuracy_vs_steps"]] == [1, 2, 4, 6]
    model, _ = load_model(tmp_path / "model")
    structure = synapses(model.backbone.graph, model.head, (2, 8, 8))  # the analog network passes every frame
    assert (result.metrics["analog_macs"], result.metrics["macs"]) == (6 * structure.analog_macs, 6 * structure.macs)
    assert begin(config, data, {}).model(train.images[:2]).shape == (2, 2)
