"""Networks trained on recordings: every frame is a picture to them, and so it is to their spiking twins."""

import pytest
import torch

from engram.backbone.errors import UserError
from engram.backbone.experiments.configs import EvaluateConfig, TrainConfig
from engram.backbone.experiments.evaluate import Evaluate
from engram.backbone.experiments.train import Train
from engram.snn.conversion.configs import ConvertConfig
from engram.snn.conversion.convert import convert
from engram.snn.conversion.converted import converted
from engram.snn.conversion.experiment import Convert
from engram.snn.conversion.methods import Conversion
from engram.snn.lowering.lower import lower
from engram.snn.simulation.counting import Tally, synapses

STEPS, FRAMES = 6, 3


@pytest.fixture
def classifier(sequential_net, classifier_of):
    return classifier_of(sequential_net)


@pytest.fixture
def twins(classifier, images):
    """The same network converted for pictures and for frames."""
    how = {"steps": STEPS, "calibration": "potential"}
    return [convert(classifier, [images], len(images), frames=frames, **how) for frames in ("steps", "anew")]


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_constant_frames_are_the_picture(twins, images):
    still, anew = twins
    frames = images[:, None].expand(-1, 5, *images.shape[1:])
    with torch.inference_mode():
        close(anew(frames), still(images))
        steps = anew.backbone.forward_steps(anew.normalise(frames))
    assert len(steps) == 5
    for each in steps:
        close(each, still.backbone(still.normalise(images)))


def test_every_frame_is_a_picture_by_itself(twins, images):
    still, anew = twins
    frames = images.unflatten(0, (-1, FRAMES))
    with torch.inference_mode():
        x = anew.normalise(frames)
        steps = anew.backbone.forward_steps(x)
        for number in range(FRAMES):
            close(steps[number], still.backbone(x[:, number]))
        close(anew.backbone(x), steps.mean(0))


def test_with_many_steps_it_answers_what_the_trained_one_does(classifier, images):
    frames = images.unflatten(0, (-1, FRAMES))
    with torch.inference_mode():
        wanted = classifier(frames.flatten(0, 1)).unflatten(0, (-1, FRAMES)).mean(1)
        made = convert(classifier, [images], len(images), steps=512, threshold="max", calibration="none", frames="anew")
        error = (made(frames) - wanted).abs().max() / wanted.abs().max()
    assert error < 0.02


def test_in_python_frames_come_one_by_one(classifier, images):
    frames = images.unflatten(0, (-1, FRAMES))
    how = Conversion(steps=STEPS, frames="anew")
    with pytest.raises(UserError, match=r"must be a tensor \[N, C, H, W\]"):
        converted(classifier, frames, how, 100)
    made = converted(classifier, frames.flatten(0, 1), how, 100)
    with torch.inference_mode():
        assert made.module(frames).shape == (2, 3)


def test_no_chip_begins_anew_at_every_frame(twins):
    _, anew = twins
    with pytest.raises(UserError, match="begin anew at every frame"):
        lower(anew, frames=True)
    assert lower(anew).steps == STEPS


def test_spikes_of_frames_are_those_of_the_pictures(twins, images):
    still, anew = twins
    frames = images.unflatten(0, (-1, FRAMES))
    structure = synapses(still.backbone.graph, still.head, still.backbone.in_shape)
    tally, one_by_one = Tally(structure.fan_out, [1, 2, 3]), Tally(structure.fan_out, [STEPS])
    with torch.inference_mode():
        x = anew.normalise(frames)
        _, rates = anew.backbone.observe(x, tally)
        for count in range(1, FRAMES + 1):
            _, alone = still.backbone.observe(x[:, count - 1], one_by_one)
            assert torch.equal(tally.spikes[:, count - 1], one_by_one.spikes[:, 0])
            assert torch.equal(tally.operations[:, count - 1], one_by_one.operations[:, 0])
        for name, values in rates.items():
            close(values.unflatten(0, (-1, FRAMES))[:, -1], alone[name])


def test_a_tap_sees_every_step_in_the_order_of_time(twins, images):
    still, anew = twins
    frames = images.unflatten(0, (-1, FRAMES))
    seen, alone = {}, {}

    def keep(into):
        def tap(site, value):
            into.setdefault(site.name, []).append(value.clone())
            return value

        return tap

    with torch.inference_mode():
        x = anew.normalise(frames)
        tapped = anew.backbone.forward_steps(x, keep(seen))
        close(tapped, anew.backbone.forward_steps(x))
        still.backbone.forward_steps(x[:, 1], keep(alone))
    inner = [name for name in alone if name != "features"]
    assert inner and seen.keys() == alone.keys()
    for name in inner:
        assert len(seen[name][0]) == FRAMES * STEPS
        close(seen[name][0][STEPS : 2 * STEPS], alone[name][0])


def test_what_a_tap_puts_in_place_goes_on(twins, images):
    _, anew = twins
    frames = images.unflatten(0, (-1, FRAMES))

    def silence(site, value):
        found = value.clone()
        found[STEPS:] = 0 if site.stage == 0 else found[STEPS:]
        return found

    with torch.inference_mode():
        x = anew.normalise(frames)
        plain, changed = anew.backbone.forward_steps(x), anew.backbone.forward_steps(x, silence)
    close(changed[:1], plain[:1])
    assert not torch.allclose(changed[1:], plain[1:])


@pytest.fixture(scope="module")
def recordings():
    return {"frames": 8, "samples": 60, "size": 8, "stroke": 2}


@pytest.fixture(scope="module")
def trained_on_frames(recordings, services, tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    given = {"dataset": "moving-shapes", "dataset_options": recordings, "backbone": "vgg-tiny", "epochs": 2}
    config = TrainConfig.resolve(given)
    run(Train(config, services(folder, {})))
    return folder


def run(work):
    state = work.start()
    while work.step(state):
        pass
    return work.finish(state)


def test_a_network_trained_on_recordings(trained_on_frames, recordings, services, tmp_path):
    (tmp_path / "converted").mkdir()
    (tmp_path / "scored").mkdir()
    config = ConvertConfig.resolve({"from_trial": "x", "steps": 4, "calibration_images": 100})
    result = run(Convert(config, services(tmp_path / "converted", {"trained": trained_on_frames})))
    rows = result.tables["accuracy_vs_steps"]
    assert [row["steps"] for row in rows] == [1, 2, 4, 8]
    priced = result.tables["costs"]
    assert [row["steps"] for row in priced] == [None, None, 4, 8, 16, 32]
    # in front of the first neurons a frame is multiplied once, however long it is shown
    assert [row["macs"] for row in priced[2:]] == [priced[2]["macs"] * frames for frames in (1, 2, 4, 8)]
    again = run(
        Evaluate(
            EvaluateConfig.resolve({"from_trial": "y"}),
            services(tmp_path / "scored", {"trained": tmp_path / "converted"}),
        )
    )
    assert again.metrics["test/accuracy"] == pytest.approx(result.metrics["snn/test/accuracy"])


@pytest.mark.parametrize(
    ("option", "got"),
    [
        ({"coding": "poisson"}, "--coding must be constant for recordings"),
        ({"pre_simulation": 3}, "--pre-simulation must be 0"),
    ],
)
def test_what_recordings_have_no_use_for(trained_on_frames, services, tmp_path, option, got):
    config = ConvertConfig.resolve({"from_trial": "x", "steps": 4, **option})
    with pytest.raises(UserError, match=got):
        Convert(config, services(tmp_path, {"trained": trained_on_frames})).start()
