"""Converted networks are kept like any other: scored, learned from, and trained on as they are."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from engram.backbone.errors import UserError
from engram.backbone.experiments.configs import EvaluateConfig, TrainConfig
from engram.backbone.experiments.evaluate import Evaluate
from engram.backbone.experiments.train import Train
from engram.backbone.nets.blocks import StaticBackbone
from engram.backbone.saved.model import load_model, save_model
from engram.backbone.seeding import seed_everything
from engram.snn.conversion.configs import ConvertConfig
from engram.snn.conversion.convert import convert
from engram.snn.conversion.experiment import Convert
from engram.snn.conversion.storage import as_converted
from engram.snn.measures.costs import operations, spikes_sent
from engram.snn.simulation.counting import Tally, synapses
from engram.snn.training.adapter import spiking
from engram.snn.training.configs import SpikingTrainConfig
from engram.snn.training.experiment import SpikingTrain
from engram.snn.training.options import SpikingOptions
from engram.snn.training.survey import Survey

CONVERT = ConvertConfig.resolve({"from_trial": "x", "steps": 3, "calibration_images": 200})
TRAIN = SpikingTrainConfig.resolve(
    {"backbone": "vgg-tiny", "from_trial": "x", "steps": 3, "epochs": 1, "batch_size": 64, "precision": "fp32"}
)


def run(kind, config, services):
    seed_everything(config.seed)
    work = kind(config, services)
    state = work.start()
    while work.step(state):
        pass
    return work.finish(state)


@pytest.fixture(scope="module")
def source(trained, digits, tmp_path_factory, made_of):
    """The folder of a trained network."""
    folder = tmp_path_factory.mktemp("trained")
    save_model(folder / "model", trained, made_of("vgg-tiny", {}, digits))
    return folder


@pytest.fixture(scope="module")
def converted(source, services, tmp_path_factory):
    """The folder and result of its conversion."""
    folder = tmp_path_factory.mktemp("converted")
    return folder, run(Convert, CONVERT, services(folder, {"trained": source}))


def test_a_converted_network_is_evaluated_like_any_network(converted, services, tmp_path):
    folder, result = converted
    again = run(Evaluate, EvaluateConfig(from_trial="x"), services(tmp_path, {"trained": folder}))
    assert again.metrics["test/accuracy"] == result.metrics["snn/test/accuracy"]
    assert [adapter.name for adapter in load_model(folder / "model")[1].adapters] == ["snn.convert"]


def test_training_begins_as_the_converted_network_and_gains(converted, services, tmp_path):
    folder, result = converted
    still, moved = (
        run(SpikingTrain, replace(TRAIN, lr=lr), services(tmp_path / name, {"trained": folder}))
        for name, lr in (("still", 1e-12), ("moved", TRAIN.lr))
    )
    for name in ("synaptic_operations", "spikes_per_neuron_per_step", "macs", "analog_macs"):
        assert still.metrics[name] == pytest.approx(result.metrics[name], rel=1e-4)
    assert still.metrics["test/accuracy"] == pytest.approx(result.metrics["snn/test/accuracy"], abs=0.003)
    assert moved.metrics["test/loss"] < still.metrics["test/loss"]
    back, made = load_model(tmp_path / "moved" / "model")
    assert [adapter.name for adapter in made.adapters] == ["snn.convert", "snn.spiking"]
    scored = run(Evaluate, EvaluateConfig(from_trial="x"), services(tmp_path, {"trained": tmp_path / "moved"}))
    assert scored.metrics["test/accuracy"] == moved.metrics["test/accuracy"]
    assert any(not torch.equal(unit.scale, torch.ones_like(unit.scale)) for unit in back.backbone.neurons().values())


def test_what_only_runs_is_not_trained_and_not_converted_again(converted, services, tmp_path):
    lent = services(tmp_path, {"trained": converted[0]})
    with pytest.raises(UserError, match=r"--from must be one whose weights can be trained.*use snn\.train --from"):
        Train(TrainConfig.resolve({"backbone": "vgg-tiny", "from_trial": "x"}), lent).start()
    with pytest.raises(UserError, match="one without neurons so far; got a spiking one"):
        Convert(CONVERT, lent).start()


# --- the network by itself --------------------------------------------------------------------------------------------


def pooled_net(exact, pool):
    stages = [
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), pool),
        nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU()),
    ]
    return exact(StaticBackbone((2, 8, 8), stages, nn.Sequential(nn.Flatten(), nn.Linear(24, 5), nn.ReLU())))


@pytest.mark.parametrize("net", ["residual", "max", "average"])
@pytest.mark.parametrize(
    "options", [{}, {"calibration": "bias", "per": "layer"}, {"calibration": "weights"}, {"hybrid": "1"}]
)
@pytest.mark.parametrize("scaled", [False, True])
def test_spikes_and_stages_are_those_of_the_converted_network(
    residual_net, exact, classifier_of, images, net, options, scaled
):
    pool = {"max": nn.MaxPool2d(2), "average": nn.AvgPool2d(2)}
    backbone = residual_net if net == "residual" else pooled_net(exact, pool[net])
    made = convert(classifier_of(backbone), [images.abs() / 2], len(images), steps=5, **options).backbone
    ours = spiking(made, SpikingOptions(steps=5, neuron="if", learn_scale=scaled, start=0.25))
    with torch.no_grad():
        torch.testing.assert_close(ours.forward_steps(images), made.forward_steps(images))
        for stage, other in zip(ours.stages(images), made.stages(images), strict=True):
            torch.testing.assert_close(stage, other)
    ours.train()(images).square().sum().backward()
    spikes = {name for name, _ in ours.named_parameters() if "scale" not in name}
    grads = {name: value.grad for name, value in ours.named_parameters() if name in spikes}
    assert all(grad is not None and bool(grad.isfinite().all()) for grad in grads.values())
    assert sum(bool(grad.any()) for grad in grads.values()) > len(grads) // 2
    assert not any(value.requires_grad for value in made.parameters())


@torch.no_grad()
def test_max_pools_of_spikes_count_in_both_experiments(exact, classifier_of, images):
    """A ReLU that is a stage keeps its max pool behind it, so that the pool gets spikes."""
    stages = [
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU()),
    ]
    net = exact(StaticBackbone((2, 8, 8), stages, nn.Sequential(nn.MaxPool2d(2), nn.Flatten())))
    model = classifier_of(net)
    made = convert(model, [images.abs() / 2], len(images), steps=5)
    structure = synapses(made.backbone.graph, made.head, (2, 8, 8))
    tally = Tally(structure.fan_out, [1, 2, 4, 5])
    made.backbone.simulate(images, tally)
    model.backbone = spiking(made.backbone, SpikingOptions(steps=5, neuron="if"))
    model.head = made.head
    survey = Survey(model.eval(), 5)
    survey.add(images, torch.zeros(len(images), dtype=torch.int64))
    assert len(structure.relays) == 2
    caused = [row["synaptic_operations"] for row in survey.curve()]
    assert caused == operations(structure, tally, len(images))
    assert [row["spikes"] for row in survey.curve()] == spikes_sent(structure, tally, len(images))
    assert sum(row["synaptic_operations"] for row in survey.layers()) < caused[-1]  # what pools cause is no neurons'


def test_what_training_cannot_repeat_is_refused(exact, classifier_of, images):
    model = classifier_of(pooled_net(exact, nn.MaxPool2d(2)))
    for options in ({"delay": 1}, {"pre_simulation": 2}):
        made = convert(model, [images.abs() / 2], len(images), steps=4, **options).backbone
        with pytest.raises(UserError, match="converted without delay and pre-simulation"):
            spiking(made, SpikingOptions(steps=4, neuron="if"))
    made = convert(model, [images.abs() / 2], len(images), steps=4).backbone
    for options in ({"truncate": 2}, {"checkpoint_steps": 2}):
        with pytest.raises(UserError, match="left out for a network with max pools over time"):
            spiking(made, SpikingOptions(steps=4, neuron="if", **options)).train()(images)


def test_a_saved_network_without_thresholds_is_named(source, tmp_path):
    model, made = load_model(source / "model")
    save_model(tmp_path, model, as_converted(made, CONVERT.conversion()))
    with pytest.raises(UserError, match="saved with its thresholds"):
        load_model(tmp_path)
