"""Predictive coding against its equation, autograd and finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engram.backbone.data.sets import MemorySplit
from engram.backbone.errors import UserError
from engram.backbone.hardware import Machine
from engram.backbone.nets.plain import copied
from engram.backbone.training.loop import Trainer
from engram.backbone.training.options import TrainingOptions
from engram.feedback.adapters.predictive import predictive
from engram.feedback.network.predictions import Prediction
from engram.feedback.options import PredictiveOptions
from engram.feedback.reconstruction import Reconstruction

ADAPTER = "feedback.predictive"
SIZES = [((3, 4, 4), (2, 8, 8), 3), ((2, 3, 4), (3, 7, 9), 5), ((4, 5, 5), (2, 5, 5), 3), ((3, 1, 1), (1, 4, 4), 3)]


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def cells(prediction, source):
    """How many cells of what is predicted change with each cell of one channel, counted, on average."""
    plain = prediction(torch.zeros(1, *source).double())
    counts = []
    for row in range(source[1]):
        for column in range(source[2]):
            value = torch.zeros(1, *source).double()
            value[0, 0, row, column] = 1.0
            counts.append(int((prediction(value) != plain).sum()))
    return sum(counts) / len(counts)


@pytest.mark.parametrize(("source", "target", "kernel"), SIZES)
def test_a_prediction_s_adjoint_and_scale_are_those_of_autograd_and_of_counting(source, target, kernel):
    torch.manual_seed(0)
    prediction = Prediction(source, target, kernel).double()
    value, error = random(2, *source).requires_grad_(), random(2, *target, seed=1)
    (want,) = torch.autograd.grad(prediction(value), value, error)
    with torch.inference_mode():
        torch.testing.assert_close(prediction.adjoint(error), want)
    assert torch.autograd.gradcheck(prediction.adjoint, error.requires_grad_())
    with torch.no_grad():
        assert prediction.scale == pytest.approx(2 / cells(prediction, source) ** 0.5)


def step_of_the_equation(net, x, stages, beta, lam, alpha):
    """One step as the papers write it, its gradients by autograd of the mean squared errors over batch and values."""
    predictions, below, outputs = net.predictions, [x, *stages], []
    drive = x
    for n, e in enumerate(stages):
        ff = net.inner.apply_stage(n, drive)
        leaf = e.detach().requires_grad_()
        guess = predictions[n](leaf)
        (grad,) = torch.autograd.grad(F.mse_loss(guess, below[n]), leaf)
        scaled = guess.numel() / (2 / predictions[n].scale) * grad
        last = n == len(stages) - 1
        fb = 0 if last else lam[n] * predictions[n + 1](stages[n + 1])
        drive = beta[n] * ff + fb + (1 - beta[n] - (0 if last else lam[n])) * e - alpha[n] * scaled
        outputs.append(drive)
    return outputs


def test_steps_are_those_of_the_equation(made, images):
    given = {"feedforward": "0.2,0.4,0.5", "feedback": "0.05,0.1,0", "correction": "0.1,0.2,0.3"}
    net = made(ADAPTER, steps=3, **given).backbone.double()
    x = images.double()
    with torch.no_grad():
        steps, found = net.stage_steps(x), net.forward_steps(x)
        stages = [step[0] for step in steps]
        torch.testing.assert_close(stages, net.inner.image_stages(x))
    for step in (1, 2):
        shares = ([float(part) for part in given[name].split(",")] for name in given)
        stages = [each.detach() for each in step_of_the_equation(net, x, stages, *shares)]
        torch.testing.assert_close([each[step] for each in steps], stages)
        torch.testing.assert_close(found[step], net.inner.apply_tail(stages[-1]))


@torch.no_grad()
def test_neither_size_nor_order_of_a_batch_changes_anything(made, images):
    net = made(ADAPTER, correction="0.5").backbone.double()
    x = images.double()
    whole = net.forward_steps(x)
    torch.testing.assert_close(net.forward_steps(x[[4, 0]]), whole[:, [4, 0]])
    torch.testing.assert_close(torch.cat([net.forward_steps(each) for each in x.split(1)], 1), whole)
    assert torch.equal(net.forward_steps(x), whole)


def energies(net, x):
    """The mean squared error of every prediction after every step, [steps][stages]."""
    state, found = net.begin(x), []
    for step in range(net.steps):
        _, state = net.advance(x, state, step)
        found.append([error.square().mean().item() for error in net.errors(x, state.stages)])
    return torch.tensor(found)


@torch.no_grad()
def test_the_first_error_falls_where_stages_correct_themselves_alone(made, images):
    """Without a share of others the first stage descends the error of its prediction of the image."""
    net = made(ADAPTER, feedforward="0", feedback="0", correction="0.1", steps=12).backbone
    errors = energies(net, images)[:, 0]
    assert (errors.diff() < 0).all() and errors[-1] < 0.8 * errors[0]


@torch.no_grad()
def test_the_energy_falls_where_feedback_is_the_other_half_of_its_gradient(made, images):
    """E is the sum of all errors. A stage's output is in two of them, what it predicts and what is predicted of it: the
    second gradient is the feedback, at the share that belongs to the rate of the correction.
    """
    alpha = 0.1
    net = made(ADAPTER, steps=2).backbone
    sizes = [x[0].numel() for x in (images, *net.inner.image_stages(images))][:3]
    roots = [2 / prediction.scale for prediction in net.predictions]
    lam = [alpha * (sizes[n] / roots[n]) * 2 / sizes[n + 1] for n in (0, 1)]
    given = {"feedforward": "0", "feedback": f"{lam[0]},{lam[1]},0", "correction": str(alpha)}
    energy = energies(made(ADAPTER, steps=20, **given).backbone, images).sum(1)
    assert (energy.diff() < 0).all() and energy[-1] < 0.8 * energy[0]


def test_gradients_are_those_of_finite_differences(made):
    net = made(ADAPTER, backbone="lenet5", steps=3, learn_mixing=True, correction="0.3").backbone.double()
    x = random(2, 2, 8, 8)
    chosen = [net.paths[0].conv.bias, net.image.conv.bias, *net.mixing.parameters()]
    weights = [each.detach().clone().requires_grad_() for each in chosen]

    def run(image, *values):
        names = {id(parameter): name for name, parameter in net.named_parameters()}
        given = {names[id(old)]: new for old, new in zip(chosen, values, strict=True)}
        return torch.func.functional_call(net, given, (image,)).sum(1)

    assert torch.autograd.gradcheck(run, (x.requires_grad_(), *weights), fast_mode=True)


def test_shares_that_are_learned_begin_as_given(made, images):
    given = {"feedforward": "0.3", "feedback": "0.2", "correction": "0.05"}
    fixed, learned = (made(ADAPTER, learn_mixing=each, **given).backbone for each in (False, True))
    found = learned.forward_steps(images)
    torch.testing.assert_close(found, fixed.forward_steps(images))
    found.square().sum().backward()
    assert all(parameter.shape == (1,) and parameter.grad.any() for parameter in learned.mixing.parameters())
    assert not list(fixed.mixing.parameters())


def test_predictions_alone_are_trained_with_the_objective_of_their_own(made):
    model = made(ADAPTER)
    images = (torch.rand(32, 2, 8, 8, generator=torch.Generator().manual_seed(3)) * 255).byte()
    before = copied(model).state_dict()
    options = TrainingOptions(epochs=3, batch_size=16, lr=3e-3, weight_decay=0.0, schedule="constant")
    training = Trainer(model, MemorySplit(images, torch.arange(32) % 3), options, Machine("cpu"), Reconstruction())
    losses = [training.advance()["train/loss"] for _ in range(3)]
    assert losses == sorted(losses, reverse=True)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    parts = ("image", "paths.0", "paths.1")
    assert moved == {f"backbone.{part}.conv.{kind}" for part in parts for kind in ("weight", "bias")}


def test_the_errors_that_are_trained_on_are_those_of_the_plain_pass(made, images):
    net = made(ADAPTER, unrolling="biological").backbone
    stages = net.inner.image_stages(images)
    want = [
        F.mse_loss(guess(e), below)
        for guess, e, below in zip(net.predictions, stages, (images, *stages[:-1]), strict=True)
    ]
    torch.testing.assert_close(net.prediction_errors(images), torch.stack(want))
    recording = images.unsqueeze(1).expand(-1, 3, -1, -1, -1)
    torch.testing.assert_close(net.prediction_errors(recording), torch.stack(want))


@torch.no_grad()
def test_a_tap_sees_what_a_connection_adds_and_can_take_it_away(made, images):
    net, without = (made(ADAPTER, feedback=each).backbone for each in ("0.2", "0"))
    seen = []

    def off(site, value):
        seen.append(site)
        return torch.zeros_like(value) if ">" in site.name else value

    torch.testing.assert_close(net.forward_steps(images, off), without.forward_steps(images), atol=1e-5, rtol=1e-4)
    paths = [(site.step, site.name) for site in seen if ">" in site.name]
    assert paths == [(step, name) for step in (1, 2, 3) for name in ("layer2>layer1", "layer3>layer2")]


@torch.no_grad()
def test_outputs_stay_float32_under_bf16(made, images):
    net = made(ADAPTER).backbone
    want = net.forward_steps(images)
    with torch.autocast("cpu", torch.bfloat16):
        _, state = net.advance(images, net.begin(images), 0)
        _, state = net.advance(images, state, 1)
        assert {stage.dtype for stage in state.stages} == {torch.float32}
        torch.testing.assert_close(net.forward_steps(images).float(), want, atol=0.05, rtol=0.05)


@torch.no_grad()
def test_a_network_of_one_stage_predicts_the_image_alone(made, images):
    net = made(ADAPTER, backbone="mlp", correction="0.5").backbone
    assert len(net.predictions) == len(net.stage_channels) and next(iter(net.links())) == "layer1>image"
    assert energies(net, images).isfinite().all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"connections": "layer3>layer1"}, "connections must be layer2>layer1,layer3>layer2 for feedback.predictive"),
        ({"feedforward": "0.2,0.4"}, "feedforward must be one value, or one for each stage; got 2 values. Give one"),
        (
            {"feedback": "much"},
            "feedback must be a number from 0 to 1, or one for each stage with commas between; got 'much'",
        ),
        (
            {"correction": "-1"},
            "correction must be a number from 0, or one for each stage with commas between; got '-1'",
        ),
        ({"feedforward": "0.7", "feedback": "0.4"}, "must be at most 1 together in stage 1; got 0.7 and 0.4"),
        ({"feedback": "0", "learn_mixing": True}, "must be above 0, with a rest for memory in stage 1, where they are"),
        ({"kernel": 4}, "kernel must be odd, so that predictions have a middle; got 4. Use 5."),
    ],
)
def test_what_cannot_be_is_refused(made, given, said):
    with pytest.raises(UserError) as refused:
        made(ADAPTER, **given)
    assert said in str(refused.value)


def test_a_network_that_remembers_is_refused():
    class Net(nn.Module):
        in_shape, feature_dim, stage_channels, steps, readout, remembers = (1, 4, 4), 16, (1, 1), 2, "mean", True

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def apply_stage(self, index, x, memory=None, tap=None):
            return x * self.weight

        def apply_tail(self, x, memory=None, tap=None):
            return x.flatten(1)

    with pytest.raises(UserError, match=r"a network for feedback\.predictive must be one that remembers nothing"):
        predictive(Net(), PredictiveOptions())
