"""Each calibration must change what its paper says, and help where it says so."""

import pytest
import torch
from torch import nn

from engram.backbone.nets.blocks import StaticBackbone
from engram.backbone.nets.making import build
from engram.snn.conversion.balancing import Thresholds
from engram.snn.conversion.calibration import activations, analog_means, calibrate
from engram.snn.conversion.convert import convert, lower, with_neurons
from engram.snn.graph.segments import layer_nodes, segment


@pytest.fixture(scope="module")
def batches(digits):
    return [images for images, _, _ in digits.train.batches(torch.arange(400), 100, "cpu")]


@pytest.fixture(scope="module")
def residual(digits):
    """A residual network that has learned the digits for a few seconds."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build("resnet-tiny", {}, digits.in_shape, 10, digits.mean, digits.std)
        optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
        for images, labels, _ in digits.train.batches(torch.randperm(len(digits.train)), 64, "cpu"):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model.eval()


def error_of(model, converted, images):
    """Relative error of the features."""
    x = model.normalise(images)
    wanted = model.backbone(x)
    return float((converted.backbone(x) - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("steps", [4, 8])
@torch.inference_mode()
def test_every_method_brings_features_of_other_images_nearer_to_the_analog_ones(trained, digits, batches, steps):
    images, _, _ = next(digits.test.batches(torch.arange(300), 300, "cpu"))

    def error(method):
        how = {"threshold": "percentile", "calibration": method, "calibration_steps": steps}
        return error_of(trained, convert(trained, batches, 400, steps=steps, **how), images)

    none, bias, potential, weights = (error(method) for method in ("none", "bias", "potential", "weights"))
    assert bias < 0.95 * none
    assert potential < 0.85 * none
    assert weights < 0.85 * none


def one_layer(drive, theta=1.0, start=0.5):
    """Neurons driven by what the image says, and their analog twin."""
    net = StaticBackbone((3, 1, 1), [nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())], nn.Flatten()).eval()
    with torch.no_grad():
        net.body[0][0].weight.copy_(torch.eye(3).view(3, 3, 1, 1))
        net.body[0][0].bias.zero_()
    graph = lower(net)
    found = {"body.0.1": Thresholds(torch.tensor([theta]), torch.zeros(1, dtype=torch.bool))}
    return with_neurons(net, graph, found, 4, start=start), graph, [drive.view(-1, 3, 1, 1)]


def test_bias_is_the_mean_error_of_every_channel_in_thresholds():
    net, graph, batches = one_layer(torch.tensor([[1.0, 0.25, 3.0], [0.5, -1.0, 1.0]]), theta=2.0)
    (neurons,) = net.neurons().values()
    # four steps from half a threshold; 2, 0.5 and 6 thresholds in all: counts 2, 1 and 4; then 1, 0 and 2
    calibrate(net, graph, batches, "bias", 4)
    expected = torch.tensor([(0.5 - 2 / 4 + 0.25 - 1 / 4) / 2, (0.125 - 1 / 4 + 0) / 2, (1.5 - 1 + 0.5 - 2 / 4) / 2])
    torch.testing.assert_close(neurons.current, expected)
    assert neurons.start.tolist() == [0.5]


def test_potential_is_the_error_over_all_steps_of_every_neuron():
    net, graph, batches = one_layer(torch.tensor([[1.0, 0.25, 3.0], [0.5, -1.0, 1.0]]), theta=2.0)
    (neurons,) = net.neurons().values()
    calibrate(net, graph, batches, "potential", 4)
    torch.testing.assert_close(neurons.start.flatten(), torch.tensor([0.5, 0.5 - 4 / 16, 0.5 + 4 / 4]))
    assert neurons.start.shape == (3, 1, 1)
    assert not neurons.current.any()


def test_layers_are_corrected_for_what_the_corrected_ones_before_them_send(trained, batches):
    """Correcting the first layer alone, then the second, gives what calibration gives the first two."""
    made = convert(trained, batches, 400, steps=4, calibration="potential").backbone.neurons()
    again = convert(trained, batches, 400, steps=4, calibration="none").backbone
    graph, layers = lower(trained.backbone), again.neurons()
    normalised = [trained.normalise(batch) for batch in batches]
    wanted = analog_means(graph, list(layers), normalised)
    with torch.no_grad():
        for name in list(layers)[:2]:
            rate = torch.cat([again.observe(x)[1][name] for x in normalised]).mean(0)
            theta = layers[name].threshold.view(-1, 1, 1)
            layers[name].start = layers[name].start + 4 * (wanted[name] / theta - rate)
            torch.testing.assert_close(layers[name].start, made[name].start, rtol=1e-4, atol=1e-4)


def test_weights_move_the_layers_before_every_neuron_and_nothing_else(trained, batches):
    before = convert(trained, batches, 400, steps=4, calibration="none")
    after = convert(trained, batches, 400, steps=4, calibration="weights")
    pairs = zip(before.named_parameters(), after.parameters(), strict=True)
    changed = {name for (name, old), new in pairs if not torch.equal(old, new)}
    first, *others = (
        {f"backbone.graph.body.{layer}.{kind}" for kind in ("weight", "bias")} for layer in ("0.0", "1.0", "2.0")
    )
    assert set.union(*others) <= changed <= set.union(first, *others)  # the image's own layer may be at its best
    assert not any(parameter.requires_grad for parameter in after.backbone.parameters())


@pytest.mark.slow
@torch.inference_mode()
def test_a_residual_network_is_calibrated(residual, digits, batches):
    images, _, _ = next(digits.test.batches(torch.arange(300), 300, "cpu"))

    def error(method):
        return error_of(residual, convert(residual, batches, 400, steps=8, calibration=method), images)

    none, potential, weights = (error(method) for method in ("none", "potential", "weights"))
    assert potential < 0.95 * none
    assert weights < 0.85 * none


@torch.no_grad()
def test_a_segment_gives_the_mean_drive_from_the_mean_spikes(residual_net, classifier_of, images):
    model = classifier_of(residual_net)
    net = convert(model, [images], len(images), steps=8, calibration="none").backbone
    names = layer_nodes(net.graph)
    for layer in list(net.neurons())[1:]:
        part, sources = segment(net.graph, layer)
        (drive,) = next(node for node in net.graph.graph.nodes if node.target == layer).all_input_nodes
        kept = net._run(images, None, [*sources, drive.name])[1]
        torch.testing.assert_close(part(*(kept[source] for source in sources)), kept[drive.name], rtol=1e-4, atol=1e-5)
        assert set(sources) <= set(names.values()) | {"x"}


@torch.no_grad()
def test_activations_are_those_of_the_network(trained, digits):
    images, _, _ = next(digits.test.batches(torch.arange(5), 5, "cpu"))
    graph, x = lower(trained.backbone), trained.normalise(images)
    found = activations(graph, x, ["body.1.2"])
    stages = trained.backbone.stages(x)
    torch.testing.assert_close(nn.functional.avg_pool2d(found["body.1.2"], 2), stages[1], rtol=1e-5, atol=1e-5)
