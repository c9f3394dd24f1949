import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engram.backbone.errors import TrialError, UserError
from engram.backbone.measures.anytime import accuracy_vs_steps
from engram.backbone.nets.blocks import StaticBackbone
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.folding import trace
from engram.backbone.nets.making import adapt, build
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.backbone.saved.model import load_model, save_model
from engram.snn.conversion import scaling
from engram.snn.conversion.balancing import Thresholds
from engram.snn.conversion.convert import check_folding, check_units, convert, lower
from engram.snn.conversion.methods import Conversion
from engram.snn.conversion.preflight import inspect
from engram.snn.conversion.storage import as_converted
from engram.snn.neurons.quantised import QCFS
from engram.snn.simulation import events


@pytest.fixture(scope="module")
def batches(digits):
    """Calibration images; none of them is ever scored."""
    return [images for images, _, _ in digits.train.batches(torch.arange(500), 100, "cpu")]


def into_spikes(model, batches, steps, per="channel", percentile=99.9):
    """By percentiles, nothing calibrated: what can be worked out by hand."""
    how = {"threshold": "percentile", "percentile": percentile, "per": per, "calibration": "none"}
    return convert(model, batches, sum(map(len, batches)), steps=steps, **how)


@torch.no_grad()
def test_folding_is_exact(trained, digits):
    images, _, _ = next(digits.test.batches(torch.arange(64), 64, "cpu"))
    graph, x = lower(trained.backbone), trained.normalise(images)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in graph.modules())
    torch.testing.assert_close(graph(x), trained.backbone(x), rtol=1e-5, atol=1e-5)
    assert check_folding(trained.backbone, graph, x) < 1e-5


@torch.no_grad()
def test_rounding_at_the_edge_of_a_level_is_no_fault_of_folding():
    net = StaticBackbone((1, 1, 1), [nn.Sequential(nn.Conv2d(1, 1, 1), QCFS(1, 4, 1.0))], nn.Flatten()).eval()
    conv = net.body[0][0]
    conv.weight.fill_(1.0)
    conv.bias.fill_(0.0)
    graph, edge = lower(net), torch.full((1, 1, 1, 1), 0.125)
    graph.get_submodule("body.0.0").bias -= 1e-6
    assert abs(float(graph(edge) - net(edge))) == 0.25
    assert check_folding(net, graph, edge) < 1e-4


@torch.no_grad()
def test_a_fold_that_changes_the_network_stops_the_trial(trained):
    graph = lower(trained.backbone)
    graph.get_submodule("body.0.0").bias[0] += 0.1
    with pytest.raises(TrialError, match="must compute what the trained one does"):
        check_folding(trained.backbone, graph, torch.rand(4, *trained.backbone.in_shape))
    graph.get_submodule("body.0.0").bias[0] = float("nan")
    with pytest.raises(TrialError):
        check_folding(trained.backbone, graph, torch.rand(4, *trained.backbone.in_shape))


class Mean(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, x):
        return x.mean(self.dim, keepdim=self.dim == 0)


class Odd(nn.Module):
    """Flattened, mixed along what is no channel, and joined by name."""

    def __init__(self):
        super().__init__()
        self.rows, self.pixels = nn.Linear(8, 8), nn.Linear(64, 8)

    def forward(self, x):
        y = torch.relu(self.rows(torch.cat(tensors=[torch.relu(x), 0.5 * x], dim=1)))
        return torch.relu(self.pixels(y.flatten(2)))


@pytest.mark.parametrize("compiler", [True, False])
@pytest.mark.parametrize("tail", ["sequence", "mean", "layer"])
@torch.no_grad()
def test_linear_layers_along_any_dimension_convert(tail, compiler, exact, images, classifier_of, monkeypatch):
    """Errors fall as 1 / T, also where sequences [B, C, L] of spikes are averaged or mixed along L."""
    if not compiler:
        monkeypatch.setattr(events, "library", lambda: None)
    ends = {"sequence": nn.Flatten(), "mean": Mean(2), "layer": nn.Sequential(nn.Linear(8, 8), nn.Flatten())}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU())
        net = StaticBackbone((2, 8, 8), [first], nn.Sequential(Odd(), ends[tail])).eval()
    model = classifier_of(net)
    inspect(net, model.head).require()
    wanted, errors = net(images), []
    for steps in (16, 64, 256):
        made = convert(model, [images], len(images), steps=steps, threshold="max", calibration="none")
        errors.append(float((made.backbone(images) - wanted).norm() / wanted.norm()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.02
    convert(model, [images], len(images), steps=4, calibration="weights")


@torch.no_grad()
def test_units_that_a_layer_does_not_carry_stop_the_trial(images, classifier_of, monkeypatch):
    """As if a mean over channels, or over images, passed thresholds on."""
    first = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU())
    for wrong, kind in ((nn.Linear(8, 8), "Linear"), (Mean(0), "mean")):
        net = StaticBackbone((2, 8, 8), [first], nn.Sequential(wrong, nn.ReLU(), nn.Flatten())).eval()
        graph = lower(net)
        found = {name: Thresholds(torch.rand(4) + 0.1, torch.zeros(4) > 0) for name in ("body.0.1", "tail.1")}
        if kind == "Linear":
            check_units(net, graph, found, images)
            monkeypatch.setattr(scaling._Absorption, "_passes", lambda *_: True)
        with pytest.raises(TrialError, match=r"first behind tail.0. Write that layer"):
            check_units(net, graph, found, images)


def test_layers_that_do_nothing_are_taken_out_and_the_model_stays_as_it_was():
    layers = [nn.Flatten(), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5), nn.Identity()]
    net = StaticBackbone((1, 2, 2), [nn.Identity()], nn.Sequential(*layers)).eval()
    before = copy.deepcopy(net.state_dict())
    left = [type(module).__name__ for name, module in lower(net).named_modules() if "." in name]
    assert left == ["Flatten", "Linear", "ReLU"]
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert any(isinstance(module, nn.Dropout) for module in trace(net).modules())


@torch.inference_mode()
def test_the_spiking_network_approaches_the_analog_one(trained, digits, batches):
    images, _, _ = next(digits.test.batches(torch.arange(100), 100, "cpu"))
    exact = trained(images)
    errors = []
    for steps in (4, 32, 256):
        spiking = into_spikes(trained, batches, steps, percentile=100)
        errors.append(float((spiking(images) - exact).abs().mean() / exact.abs().mean()))
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 0.02


@torch.inference_mode()
def test_accuracy_on_test_images_reaches_that_of_the_analog_network(trained, digits, batches):
    spiking = into_spikes(trained, batches, 64)
    rows = accuracy_vs_steps(spiking, digits.test, [1, 8, 64], "cpu", 128)
    (analog,) = accuracy_vs_steps(trained, digits.test, [1], "cpu", 128)
    assert analog["accuracy"] > 0.9
    assert abs(rows[2]["accuracy"] - analog["accuracy"]) <= 0.01
    assert rows[0]["accuracy"] < rows[1]["accuracy"] <= rows[2]["accuracy"] + 0.01


@torch.inference_mode()
def test_thresholds_by_channel_survive_unequal_channels_and_by_layer_do_not(trained, digits, batches):
    """Scale channels by powers of two and undo it in the next layer: the same analog network, bit for bit."""
    uneven = copy.deepcopy(trained)
    first, norm, second = uneven.backbone.body[0][0], uneven.backbone.body[0][1], uneven.backbone.body[1][0]
    scale = 2.0 ** (torch.arange(first.out_channels) % 8)
    norm.weight.mul_(scale)
    norm.bias.mul_(scale)
    second.weight.div_(scale.view(1, -1, 1, 1))

    def accuracy(model, per):
        rows = accuracy_vs_steps(into_spikes(model, batches, 8, per), digits.test, [8], "cpu", 128)
        return rows[0]["accuracy"]

    assert accuracy(uneven, "channel") == accuracy(trained, "channel")
    assert accuracy(uneven, "layer") < accuracy(uneven, "channel") - 0.1


@torch.inference_mode()
def test_a_converted_network_comes_back_from_disk(trained, digits, batches, tmp_path, made_of):
    spiking = into_spikes(trained, batches, 6)
    save_model(tmp_path, spiking, as_converted(made_of("vgg-tiny", {}, digits), Conversion(steps=6)))
    images, _, _ = next(digits.test.batches(torch.arange(20), 20, "cpu"))
    assert torch.equal(load_model(tmp_path)[0](images), spiking(images))
    file = tmp_path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(UserError, match="must be in"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["airnet", "resnet-tiny"])
@torch.no_grad()
def test_what_the_rewriting_decided_by_weights_comes_back(name, tmp_path, made_of):
    """BatchNorm behind a max pool: folded where its factors are positive, a layer of its own elsewhere."""
    options, shape, mean, std = {"pooling": "max"}, (1, 10, 10), torch.tensor([0.5]), torch.tensor([0.3])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images = torch.rand(30, *shape)
        model = build(name, options, shape, 2, mean, std).eval()
        norms = [module for module in model.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
        for place, norm in enumerate(norms):
            norm.weight.copy_(torch.rand(norm.num_features) + 0.5)
            norm.weight[0] *= 1 if place % 2 else -1
    spiking = into_spikes(model, [images], 3)
    made = made_of(name, options, in_shape=shape, classes=("a", "b"))
    save_model(tmp_path / "spiking", spiking, as_converted(made, Conversion(steps=3)))
    loaded, made = load_model(tmp_path / "spiking")
    assert torch.equal(loaded(images), spiking(images))
    own = {key for key in loaded.backbone.state_dict() if key.endswith(".weight")}
    normal = {f"graph.{key}" for key in lower(model.backbone).state_dict() if key.endswith(".weight")}
    assert own == normal

    trained_on = Classifier(adapt(loaded.backbone, "snn.spiking", {"steps": 3}), loaded.head, mean, std)
    step = in_full(Registry.discover(), "adapters", "snn.spiking", {"steps": 3})
    for parameter in trained_on.parameters():
        parameter.mul_(0.9)
    save_model(tmp_path / "trained", trained_on.eval(), replace(made, adapters=(*made.adapters, step)))
    assert torch.equal(load_model(tmp_path / "trained")[0](images), trained_on(images))


@torch.no_grad()
def test_every_calibration_image_counts_once(trained, batches):
    name, neurons = next(iter(into_spikes(trained, batches, 8).backbone.neurons().items()))
    graph, heard = lower(trained.backbone), []
    graph.get_submodule(name).register_forward_hook(lambda module, inputs, output: heard.append(output))
    for batch in batches:
        graph(trained.normalise(batch))
    values = torch.cat(heard).transpose(0, 1).flatten(1).double().numpy()
    expected = torch.from_numpy(np.percentile(values, 99.9, axis=1)).float()
    torch.testing.assert_close(neurons.threshold.flatten(), expected, rtol=1e-5, atol=1e-6)


def quantised(levels, theta, exact):
    stages = [nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), QCFS(4, levels), nn.AvgPool2d(2))]
    net = exact(StaticBackbone((2, 8, 8), stages, nn.Flatten()))
    with torch.no_grad():
        net.body[0][1].threshold.copy_(theta)
    return net


@pytest.mark.parametrize("levels", [1, 4, 8])
@torch.no_grad()
def test_one_quantised_layer_is_the_spiking_network_at_as_many_steps(levels, exact, images, classifier_of):
    """Powers of two and quarters: no rounding, so equal to the last bit."""
    model = classifier_of(quantised(levels, torch.tensor([0.5, 1.0, 2.0, 4.0]), exact))
    made = convert(model, [images], len(images), steps=levels, calibration="none", delay=0)
    (neurons,) = made.backbone.neurons().values()
    assert neurons.threshold.tolist() == [0.5, 1.0, 2.0, 4.0]
    assert torch.equal(made.backbone(images), model.backbone(images))


@torch.no_grad()
def test_calibration_leaves_neurons_alone_that_count_right(exact, images, classifier_of):
    model = classifier_of(quantised(4, torch.tensor([0.5, 1.0, 2.0, 4.0]), exact))
    plain, auto, potential = (
        convert(model, [images], len(images), steps=steps, calibration=method).backbone
        for steps, method in ((4, "none"), (8, "auto"), (4, "potential"))
    )
    for made in (auto, potential):
        assert all(torch.equal(new, old) for new, old in zip(made.parameters(), plain.parameters(), strict=True))
        assert all((neurons.start == 0.5).all() for neurons in made.neurons().values())
    assert [made.delay for made in (plain, auto, potential)] == [2, 2, 2]
    assert convert(model, [images], len(images), steps=2, calibration="none").backbone.delay == 1
    assert convert(model, [images], len(images), steps=2, calibration="none", delay=0).backbone.delay == 0


@given(
    theta=st.lists(st.floats(0.05, 0.25), min_size=4, max_size=4), levels=st.integers(1, 16), seed=st.integers(0, 99)
)
@settings(deadline=None, max_examples=25)
def test_quantised_networks_bring_their_thresholds_and_equal_their_spiking_twin(theta, levels, seed):
    """Two places where rounding may tip a count by one are allowed in a thousand."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        stages = [nn.Sequential(nn.Conv2d(1, 4, 3), QCFS(4, levels))]
        net = StaticBackbone((1, 8, 8), stages, nn.Flatten()).eval()
        net.body[0][1].threshold.copy_(torch.tensor(theta))
        images = torch.rand(8, 1, 8, 8)
        model = Classifier(net, nn.Linear(144, 2), torch.zeros(1), torch.ones(1))
        made = convert(model, [images], 8, steps=levels, calibration="none", delay=0)
        counts = made.backbone.observe(images)[1]["body.0.1"] * levels
        expected = net.stages(images)[0] / torch.tensor(theta).view(-1, 1, 1) * levels
        assert ((counts - expected).abs() > 0.01).float().mean() < 0.002


@torch.inference_mode()
def test_max_pools_and_functional_activations_convert(digits):
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(8, 8, 3, padding=1), nn.MaxPool2d(2)

        def forward(self, x):
            return torch.relu(self.pool(torch.relu(self.conv(x))))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())
        net = StaticBackbone(digits.in_shape, [first, Functional()], nn.Flatten()).eval()
        model = Classifier(net, nn.Linear(net.feature_dim, 10), digits.mean, digits.std).eval()
    images, _, _ = next(digits.test.batches(torch.arange(60), 60, "cpu"))
    made = convert(model, [images], 60, steps=256, threshold="max", calibration="none")
    wanted = model.backbone(model.normalise(images))
    error = (made.backbone(model.normalise(images)) - wanted).norm() / wanted.norm()
    assert error < 0.02
    assert len(made.backbone.neurons()) == 3


@torch.inference_mode()
def test_an_analog_front_stays_what_it_was(trained, batches, digits):
    images, _, _ = next(digits.test.batches(torch.arange(60), 60, "cpu"))
    x = trained.normalise(images)
    wanted = trained.backbone(x)

    def error(hybrid):
        made = convert(trained, batches, 500, steps=4, hybrid=hybrid, calibration="none")
        return len(made.backbone.neurons()), float((made.backbone(x) - wanted).norm() / wanted.norm())

    (all_three, plain), (two, less) = error("none"), error("1")
    assert (all_three, two) == (3, 2)
    assert less < plain


@torch.no_grad()
def test_wrong_shapes_are_named(trained, batches):
    made = into_spikes(trained, batches, 2)
    for shape in ((2, 1, 9, 8), (1, 8, 8), (0, 1, 8, 8)):
        with pytest.raises(UserError, match=r"images for this network must be \[B, 1, 8, 8\]"):
            made.backbone.simulate(torch.zeros(shape))


def test_no_calibration_images_are_refused(trained):
    with pytest.raises(UserError, match="calibration images must be at least one"):
        convert(trained, [], 0, steps=4)


@torch.inference_mode()
def test_the_defaults_are_better_at_few_steps_than_percentiles_alone(trained, digits, batches):
    plain = accuracy_vs_steps(into_spikes(trained, batches, 8), digits.test, [2, 4, 8], "cpu", 128)
    better = accuracy_vs_steps(convert(trained, batches, 500, steps=8), digits.test, [2, 4, 8], "cpu", 128)
    shares = [b["loss"] / a["loss"] for a, b in zip(plain, better, strict=True)]  # accuracy is too coarse on 359 images
    assert shares[0] < 0.5
    assert shares[1] < 0.8
    assert shares[2] < 1.02
