import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from engram.backbone.errors import UserError
from engram.backbone.saved.model import load_model, save_model
from engram.snn.conversion import experiment, scoring
from engram.snn.conversion.configs import ConvertConfig
from engram.snn.conversion.experiment import Convert
from engram.snn.simulation.counting import Tally


@pytest.fixture
def setup(trained, digits, tmp_path, services, made_of):
    def make(model=trained, options=None, **changes):
        made = made_of("vgg-tiny", options, digits)
        made = replace(made, data=replace(made.data, **changes))
        save_model(tmp_path / "trained" / "model", model, made)
        (tmp_path / "trial").mkdir(exist_ok=True)
        return services(tmp_path / "trial", {"trained": tmp_path / "trained"})

    return make


CONFIG = ConvertConfig.resolve({"from_trial": "x", "steps": 12, "calibration_images": 200})


def run(config, services, stop_after=None, saved=None):
    work = Convert(config, services)
    state = work.start()
    if saved is not None:
        work.load_state_dict(state, saved)
    steps = 0
    while work.step(state):
        steps += 1
        if steps == stop_after:
            return work.state_dict(state)
    return work.finish(state)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(scoring, "LARGEST_CHUNK", 50)


def test_result(setup, digits):
    services = setup()
    result = run(CONFIG, services)
    declared = {metric.name for metric in ConvertConfig.metrics}
    assert set(result.metrics) == declared
    assert 0.9 < result.metrics["snn/validation/accuracy"] <= 1 and 0.9 < result.metrics["ann/validation/accuracy"] <= 1
    assert all(math.isfinite(value) for value in result.metrics.values())
    curve = result.tables["accuracy_vs_steps"]
    assert [row["steps"] for row in curve] == [1, 2, 4, 8, 12]
    assert list(curve[0]) == [
        *("steps", "accuracy", "ann_accuracy", "drop_points", "spikes_per_neuron_per_step", "synaptic_operations"),
        *("validation_accuracy", "validation_ann_accuracy"),
    ]
    assert curve[-1]["validation_accuracy"] == result.metrics["snn/validation/accuracy"]
    assert curve[-1]["accuracy"] == result.metrics["snn/test/accuracy"] > 0.9
    assert result.metrics["test/accuracy_drop"] == pytest.approx(
        100 * (result.metrics["ann/test/accuracy"] - result.metrics["snn/test/accuracy"])
    )
    operations = [row["synaptic_operations"] for row in curve]
    assert operations == sorted(operations)
    layers = result.tables["layers"]
    assert [row["layer"] for row in layers] == ["body.0.2", "body.1.2", "body.2.2"]
    assert sum(row["synaptic_operations"] for row in layers) == pytest.approx(operations[-1])
    assert all(0 < row["firing_rate"] < 1 and row["threshold_min"] > 0 for row in layers)
    assert all(0 < row["relative_error"] < 0.5 for row in layers)
    assert all(0 <= row["saturated_share"] < row["firing_rate"] and 0 <= row["silent_share"] < 1 for row in layers)
    assert result.figures["accuracy_vs_steps"].x_scale == "log2"
    ((seen, logged),) = services.logged  # what a search may give it up by; the figure shows the curve
    assert (seen, logged) == (144, {"snn/validation/accuracy": result.metrics["snn/validation/accuracy"]})
    exits = [row for row in result.tables["early_exit"] if row["criterion"] == "confidence"]
    assert [row["mean_steps"] for row in exits] == sorted(row["mean_steps"] for row in exits)
    assert exits[0]["mean_steps"] < 6
    assert exits[-1]["accuracy"] > 0.85
    costs = result.tables["costs"]
    anns = [("ANN", None), ("ANN, zeros skipped", None)]
    assert [(row["network"], row["steps"]) for row in costs] == [*anns, *(("SNN", t) for t in (1, 2, 4, 8, 12))]
    assert [row["acs"] for row in costs[2:]] == operations
    assert services.facts["data_sha256"] == digits.fingerprint
    assert next(iter(services.tables.values())) == result.tables["preflight"]
    assert all((services.trial_dir / path).is_file() for path in result.artifacts.values())


def test_chunks_and_resume_change_nothing(setup, monkeypatch):
    services = setup()
    whole = run(CONFIG, services)
    monkeypatch.setattr(scoring, "LARGEST_CHUNK", 50)
    chunks = run(CONFIG, services)
    for stop in (2, 9):  # among the validation images, and among the test images
        saved = run(CONFIG, services, stop_after=stop)
        assert (saved["held"]["scores"]["images"] < 144) == (stop == 2)
        resumed = run(CONFIG, services, saved=saved)
        assert resumed.metrics == chunks.metrics
        assert resumed.tables == chunks.tables
    for name, value in whole.metrics.items():  # another chunk may round a convolution differently, and a spike tips
        assert chunks.metrics[name] == pytest.approx(value, rel=1e-3, abs=0.3)


def test_a_state_saved_after_the_last_chunk_finishes(setup, small_chunks):
    services = setup(validation=0.0)
    work = Convert(CONFIG, services)
    state = work.start()
    while work.step(state):
        pass
    saved, expected = work.state_dict(state), work.finish(state).metrics
    assert set(expected) == {metric.name for metric in ConvertConfig.metrics if not metric.optional}
    assert run(CONFIG, services, saved=saved).metrics == expected


def test_calibration_uses_training_images_only(setup, digits, monkeypatch):
    services, asked = setup(), []
    original = type(digits.test).batches
    monkeypatch.setattr(
        type(digits.test), "batches", lambda self, *args: (asked.append(len(self)), original(self, *args))[1]
    )
    Convert(CONFIG, services).start()
    assert set(asked) == {len(digits.train)}
    assert len(digits.test) not in asked


def test_other_data_than_it_was_trained_on_is_refused(setup):
    with pytest.raises(UserError, match="must be the one the network was trained on"):
        Convert(CONFIG, setup(fingerprint="0" * 64)).start()


def test_the_table_is_shown_before_the_refusal(setup, digits):
    from engram.backbone.nets.making import build

    model = build("vgg-tiny", {"activation": "gelu"}, digits.in_shape, 10, digits.mean, digits.std)
    services = setup(model=model, options={"activation": "gelu"}, name="nowhere")
    with pytest.raises(UserError, match=r"GELU.*--backbone.activation relu"):
        Convert(CONFIG, services).start()
    (table,) = services.tables.values()
    assert any("cannot convert" in row["verdict"] for row in table)


@pytest.mark.parametrize("coding", ["poisson", "latency"])
def test_frames_right_on_average_do_not_go_through_an_analog_front(setup, trained, monkeypatch, coding):
    model = copy.deepcopy(trained)
    model.backbone.body[0][2] = nn.GELU()
    services = setup()
    made = experiment.load_model(services.inputs["trained"] / "model")[1]
    monkeypatch.setattr(experiment, "load_model", lambda _folder: (model, made))
    with pytest.raises(UserError, match=f"constant or delta before an analog front.*got {coding} with --hybrid auto"):
        Convert(replace(CONFIG, hybrid="auto", coding=coding), services).start()
    monkeypatch.undo()
    Convert(replace(CONFIG, hybrid="auto", coding=coding), setup()).start()  # all of that one becomes spiking


def test_more_calibration_images_than_there_are(setup, digits):
    config = ConvertConfig.resolve({"from_trial": "x", "steps": 2, "calibration_images": 10**6})
    assert run(config, setup()).metrics["snn/test/accuracy"] > 0.2


def test_silent_channels_are_counted(setup, trained):
    model = copy.deepcopy(trained)
    norm = next(module for module in model.backbone.modules() if isinstance(module, nn.BatchNorm2d))
    with torch.no_grad():
        norm.bias[:3] = -1e3
    assert run(CONFIG, setup(model=model)).metrics["silent_channels"] >= 3


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": "percentile", "calibration": "none"},
        {"threshold": "max", "calibration": "bias", "per": "layer"},
        {"threshold": "ltb", "calibration": "weights", "calibration_steps": 4},
        {"pre_simulation": 2, "delay": 3},
        {"hybrid": "1"},
        {"start": 0.25, "coding": "poisson"},
        {"coding": "latency"},
        {"coding": "delta"},
    ],
)
def test_every_option_reaches_a_result_and_resumes_exactly(setup, small_chunks, options):
    config = replace(CONFIG, calibration_images=100, **options)
    services = setup()
    whole = run(config, services)
    resumed = run(config, services, saved=run(config, services, stop_after=2))
    assert (resumed.metrics, resumed.tables) == (whole.metrics, whole.tables)
    slow = options.get("coding") == "delta"  # after 12 steps its receiver has not seen the bright pixels in full
    assert whole.metrics["snn/test/accuracy"] > (0.2 if slow else 0.7)
    back = load_model(services.trial_dir / "model")[0].backbone
    assert (back.delay, back.pre_simulation) == (config.delay or 0, config.pre_simulation)


@pytest.mark.parametrize("coding", ["constant", "poisson"])
def test_steps_beforehand_are_in_every_count(setup, coding):
    """Spikes, rates, operations, costs and mean steps: all of them have the 32 steps beforehand, or none would fit."""
    config = replace(CONFIG, calibration="none", coding=coding, steps=4)
    services = setup()
    plain = run(config, services)
    work = Convert(replace(config, pre_simulation=32), services)
    state = work.start()
    beforehand = {}
    original = state.scoring.net._pre_simulate

    def watched(x, tally):
        if tally is None:  # validation images count for nothing
            return original(x, tally)
        before = Tally(tally.fan_out, tally.checkpoints)
        silenced = original(x, before)
        tally.merge(before)
        beforehand["spikes"] = beforehand.get("spikes", 0) + before.spikes[:, -1]
        beforehand["operations"] = beforehand.get("operations", 0) + float(before.operations[:, -1].sum())
        return silenced

    state.scoring.net._pre_simulate = watched
    while work.step(state):
        pass
    result, images = work.finish(state), len(state.test)
    simulated = [33, 34, 36]
    curve, tables = result.tables["accuracy_vs_steps"], result.tables
    assert [row["steps"] for row in curve] == [1, 2, 4]
    assert all(0 < row["spikes_per_neuron_per_step"] < 1 for row in curve)
    rows = zip(curve, plain.tables["accuracy_vs_steps"], simulated, strict=True)
    for row, without, steps in rows:  # spikes beforehand, and at most those of a run in which no neuron is silenced
        sent = row["spikes_per_neuron_per_step"] * state.scoring.structure.neurons * steps * images
        before = float(beforehand["spikes"].sum())
        most = without["spikes_per_neuron_per_step"] * state.scoring.structure.neurons * row["steps"] * images
        assert before < sent < before + 1.01 * most
        assert beforehand["operations"] / images < row["synaptic_operations"]
    layers = result.tables["layers"]
    mean = sum(row["firing_rate"] * row["neurons"] for row in layers) / state.scoring.structure.neurons
    assert mean == pytest.approx(curve[-1]["spikes_per_neuron_per_step"])
    assert [row["steps"] for row in tables["costs"]] == [None, None, *simulated]
    assert [row["neuron_updates"] for row in tables["costs"][2:]] == [
        state.scoring.structure.neurons * t for t in simulated
    ]
    means = [row["mean_steps"] for row in tables["early_exit"]]
    assert 33 <= min(means) <= max(means) <= 36
    assert [x for x, _ in result.figures["early_exit"].series["stops every image at the same step"]] == simulated


@pytest.mark.parametrize(("coding", "layer", "times"), [("constant", "once", 1), ("poisson", "every step", 4 + 8)])
def test_layers_before_the_neurons_say_how_often_they_multiply(setup, coding, layer, times):
    config = replace(CONFIG, calibration="none", coding=coding, steps=4, pre_simulation=8)
    work = Convert(config, setup())
    state = work.start()
    while work.step(state):
        pass
    result = work.finish(state)
    assert {row["input_layer"] for row in result.tables["costs"][2:]} == {layer}
    assert (
        result.metrics["analog_macs"]
        == times * state.scoring.structure.analog_macs
        == result.tables["costs"][-1]["macs"]
    )


@torch.no_grad()
def test_the_analog_network_is_priced_with_and_without_its_zeros(setup, trained, digits):
    """By multiplying with ones: what every layer of the trained network receives that is not zero."""
    services, found = setup(), 0.0

    def receive(module, args):
        nonlocal found
        x, weight = (args[0] != 0).double(), (module.weight != 0).double()
        linear = isinstance(module, nn.Linear)
        found += float((nn.functional.linear(x, weight) if linear else plain_conv(module, x, weight)).sum())

    def plain_conv(module, x, weight):
        return nn.functional.conv2d(x, weight, None, module.stride, module.padding)

    model = copy.deepcopy(trained)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_pre_hook(receive)
    model(digits.test.images)
    result = run(replace(CONFIG, steps=1), services)
    ann, skipping = result.tables["costs"][:2]
    assert skipping["macs"] == result.metrics["effective_macs"] == pytest.approx(found / len(digits.test), rel=1e-6)
    assert skipping["macs"] < ann["macs"] == result.metrics["macs"]


def test_calibration_images_of_one_class_are_refused(setup):
    with pytest.raises(UserError, match=r"at least two classes.*Raise --calibration-images"):
        Convert(replace(CONFIG, calibration_images=1), setup()).start()


def test_a_layer_that_is_never_active_is_named(setup, trained):
    model = copy.deepcopy(trained)
    with torch.no_grad():
        model.backbone.body[1][1].bias[:] = -1e3
    with pytest.raises(UserError, match=r"layer body\.1\.2 must be active on some calibration image"):
        Convert(CONFIG, setup(model=model)).start()


def test_activations_that_are_no_numbers_name_their_layer(setup, trained):
    model = copy.deepcopy(trained)
    with torch.no_grad():
        model.backbone.body[1][1].bias[0] = float("nan")
    with pytest.raises(UserError, match=r"body\.1\.2"):
        Convert(CONFIG, setup(model=model)).start()
