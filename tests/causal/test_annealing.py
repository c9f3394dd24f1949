"""Penalties that come into force during a training, against the published loop."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import grad

from engram.backbone.contract import ObjectiveSetting
from engram.backbone.data.sets import MemorySplit
from engram.backbone.errors import UserError
from engram.backbone.hardware import Machine
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.making import build
from engram.backbone.nets.plain import copied
from engram.backbone.objectives.distillation import Distillation
from engram.backbone.objectives.every_step import EveryStep
from engram.backbone.training.loop import Trainer
from engram.backbone.training.options import TrainingOptions
from engram.backbone.training.samplers import Uniform
from engram.causal.objectives.environment_options import IRMOptions, VRExOptions
from engram.causal.objectives.irm import IRM
from engram.causal.objectives.vrex import VREx

IMAGES, L2 = 24, 0.02
OPTIONS = TrainingOptions(
    epochs=7, batch_size=IMAGES, optimizer="adamw", lr=0.01, weight_decay=0.0, l2=L2, schedule="constant", warmup=0.0
)
STRONG = IRMOptions(penalty=40.0, anneal=3, estimate="square", restart=False)


def data() -> MemorySplit:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (IMAGES, 1, 3, 3), dtype=torch.uint8, generator=random)
    labels = torch.randint(2, (IMAGES,), generator=random)
    return MemorySplit(images, labels, {"environment": ("e=0.1", "e=0.2", "e=0.2") * (IMAGES // 3)})


def network() -> Classifier:
    torch.manual_seed(0)
    return build("mlp", {"units": 6, "initialisation": "glorot"}, (1, 3, 3), 2, torch.zeros(1), torch.ones(1))


def trainer(made, options=OPTIONS, kind=IRM) -> Trainer:
    split = data()
    setting = ObjectiveSetting(data=split, outputs=2, label_smoothing=0.0, device="cpu")
    return Trainer(network(), split, options, Machine("cpu"), kind(made, setting), Uniform(shuffled=False))


class Adam:
    """Kingma and Ba 2015, algorithm 1; torch's own would import its compiler."""

    def __init__(self, weights: list[nn.Parameter]) -> None:
        self.weights, self.steps = weights, 0
        self.first, self.second = ([torch.zeros_like(each) for each in weights] for _ in range(2))

    def step(self, grads: Sequence[Tensor]) -> None:
        self.steps += 1
        for weight, slope, first, second in zip(self.weights, grads, self.first, self.second, strict=True):
            first.mul_(0.9).add_(slope, alpha=0.1)
            second.mul_(0.999).add_(slope.square(), alpha=0.001)
            root = (second / (1 - 0.999**self.steps)).sqrt() + 1e-8
            weight.data.sub_(OPTIONS.lr * first / (1 - 0.9**self.steps) / root)


def published(options: IRMOptions, steps: int, model: Classifier) -> list[float]:
    """The loop of the paper's code: gradients of gradients, weights in the loss, division by the penalty's weight."""
    split = data()
    x, y = split.images.float() / 255, split.labels
    groups = torch.tensor([0, 1, 1] * (IMAGES // 3))
    parameters = list(model.parameters())
    adam, losses = Adam(parameters), []
    for step in range(steps):
        weight = options.penalty if step >= options.anneal else 1.0
        if options.restart and step == options.anneal:
            adam = Adam(parameters)
        risks, slopes = [], []
        for each in (0, 1):
            scale = torch.ones((), requires_grad=True)
            risks.append(F.cross_entropy(scale * model.forward_normalised(x[groups == each]), y[groups == each]))
            slopes.append(grad(risks[-1], scale, create_graph=True)[0])
        loss = torch.stack(risks).mean() + weight * torch.stack(slopes).square().mean()
        losses.append(loss.item())
        whole = loss + L2 * sum(p.square().sum() for p in parameters)
        adam.step(grad(whole / (max(weight, 1.0) if options.divide else 1.0), parameters))
    return losses


@pytest.mark.parametrize(("restart", "divide"), [(False, True), (True, True), (True, False)])
def test_a_training_is_that_of_the_published_loop(restart, divide):
    """Step for step: what the penalty counts for, what the loss is divided by, and what Adam remembers."""
    options = replace(STRONG, restart=restart, divide=divide)
    ours, model = trainer(options), network()
    losses = [ours.advance()["train/loss"] for _ in range(7)]
    assert losses == pytest.approx(published(options, 7, model), rel=1e-4)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(ours.model.state_dict()[name], value, rtol=1e-3, atol=1e-5)
    assert ours.done


def test_the_moments_that_are_forgotten_are_those_of_all_steps_before():
    ours = trainer(replace(STRONG, restart=True))
    for _ in range(4):
        ours.advance()
    (adam,) = ours.optimizers.parts
    assert {state["step"].item() for state in adam.state.values()} == {1.0}


@pytest.mark.parametrize("stop", [2, 3, 4])
@pytest.mark.parametrize("kind", [IRM, VREx])
def test_a_training_goes_on_to_the_last_bit_on_both_sides_of_the_switch(stop, kind):
    options = IRMOptions(penalty=9.0, anneal=3) if kind is IRM else VRExOptions(penalty=9.0, anneal=3)
    whole, first, second = (trainer(options, kind=kind) for _ in range(3))
    for _ in range(7):
        whole.advance()
    for _ in range(stop):
        first.advance()
    second.load_state_dict(first.state_dict())
    while not second.done:
        second.advance()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name])


def test_a_penalty_that_would_never_count_is_refused():
    with pytest.raises(UserError, match=r"--objective\.anneal must be less than the steps of the training, 7; got 7"):
        trainer(replace(STRONG, anneal=7))
    assert trainer(replace(STRONG, anneal=None), replace(OPTIONS, epochs=30)).objective.anneal == 3


def test_what_is_put_around_a_penalty_is_divided_with_it():
    ours = trainer(STRONG)
    model, machine = copied(ours.model), Machine("cpu")
    around = Distillation(EveryStep(ours.objective), model, torch.arange(2), model.normalise, 0.5, 2.0, machine)
    assert [around.divisor(step) for step in (2, 3)] == [1.0, 40.0]
    taught = Trainer(network(), data(), OPTIONS, machine, around, Uniform(shuffled=False))
    assert ours.objective.training is taught  # whose optimizer it would restart
    before = [weight.clone() for weight in taught.model.parameters()]
    taught.advance()
    assert any(not torch.equal(old, new) for old, new in zip(before, taught.model.parameters(), strict=True))
