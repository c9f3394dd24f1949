"""Which memory layout a network gets, and that it trains and is scored as its author would have done it."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from engram.backbone.data.sets import MemorySplit
from engram.backbone.hardware import Machine
from engram.backbone.measures.scoring import score
from engram.backbone.nets.blocks import StaticBackbone
from engram.backbone.nets.classifier import Classifier
from engram.backbone.nets.layout import arranged, layout
from engram.backbone.nets.making import build
from engram.backbone.objectives.cross_entropy import CrossEntropy
from engram.backbone.objectives.distillation import Distillation
from engram.backbone.registry import Registry
from engram.backbone.seeding import generator
from engram.backbone.training.loop import Trainer


def classifier(net):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        head = nn.Linear(net.feature_dim, 3)
    channels = net.in_shape[0]
    return Classifier(net, head, torch.full((channels,), 0.5), torch.full((channels,), 0.2))


def split_of(net, count=40):
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, *net.in_shape), generator=random)
    return MemorySplit(images.to(torch.uint8), torch.arange(count) % 3)


def by_hand(model, split, recipe):
    """Plain SGD in torch's own layout, in the order the trainer takes."""
    optimizer = torch.optim.SGD(model.parameters(), recipe.lr)
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(split), generator=generator(recipe.seed, "order", epoch))
        for chosen in order.split(recipe.batch_size):
            optimizer.zero_grad()
            logits = model.train()(split.images[chosen])
            nn.functional.cross_entropy(logits, split.labels[chosen]).backward()
            optimizer.step()
    return model


def test_networks_train_as_their_authors_train_them(stranger, plain_options, train):
    recipe = replace(plain_options, schedule="constant", warmup=0.0, momentum=0.0, weight_decay=0.0, batch_size=10)
    model, split = classifier(stranger), split_of(stranger)
    expected = by_hand(copy.deepcopy(model), split, recipe)
    trainer = Trainer(model, split, recipe, Machine("cpu"))
    train(trainer)
    for ours, theirs in zip(trainer.scored_model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    scores = score(trainer.scored_model, split, "cpu")
    logits = expected.eval()(split.images)
    assert scores["loss"] == pytest.approx(nn.functional.cross_entropy(logits, split.labels).item(), rel=1e-3)
    assert score(classifier(copy.deepcopy(stranger)), split, "cpu")["images"] == 40  # as one that was loaded


def test_a_teacher_is_shown_images_in_its_own_layout(stranger):
    model = classifier(stranger)
    images = torch.randn(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    teacher = Distillation(CrossEntropy(), model, torch.arange(3), model.normalise, 0.5, 2.0, Machine("cpu"))
    torch.testing.assert_close(teacher.targets(images), model.eval().forward_normalised(images.contiguous()))


@pytest.mark.parametrize(
    "name", [name for _, name, entry in Registry.discover().choices("backbones") if not entry.takes_path]
)
def test_our_networks_are_channels_last_and_not_tried(name, monkeypatch):
    monkeypatch.setattr("engram.backbone.nets.layout._works", None)
    net = build(name, {}, (3, 32, 32), 2, torch.zeros(3), torch.ones(3)).backbone
    assert layout(net) is torch.channels_last


class Plain(nn.Module):
    in_shape = (1, 6, 6)

    def __init__(self):
        super().__init__()
        self.conv, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x):
        return self.read(self.second(self.conv(x)))

    def read(self, x):
        return x.flatten(1)


class OnlyInTraining(Plain):
    def read(self, x):
        return x.view(len(x), -1) if self.training else x.flatten(1)


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return (2 * x.view(-1) * grad.reshape(-1)).view(x.shape)


class InTheBackwardPass(Plain):
    def read(self, x):
        return Square.apply(x).flatten(1)


class LooksAtMemory(Plain):
    """Nothing fails; the numbers are others."""

    def read(self, x):
        return torch.as_strided(x, (len(x), 16), (16, 1))


@pytest.mark.parametrize("kind", [OnlyInTraining, InTheBackwardPass, LooksAtMemory])
def test_what_fails_anywhere_is_found_beforehand(kind):
    net = kind()
    before, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    assert layout(net) is torch.contiguous_format and net.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[key]) and value.grad is None for key, value in net.state_dict().items())


def test_what_works_is_channels_last():
    assert layout(Plain()) is torch.channels_last
    net = StaticBackbone((1, 6, 6), [nn.Conv2d(1, 4, 3), nn.ReLU()], nn.Flatten())
    assert layout(copy.deepcopy(net)) is torch.channels_last


@pytest.mark.parametrize("channels", [1, 2])
def test_arranged_images_have_the_strides_of_their_layout(channels):
    """One channel counts as contiguous in both layouts, but a convolution answers in the one its strides say."""
    net = OnlyInTraining()
    for given in (torch.contiguous_format, torch.channels_last):
        x = torch.empty((2, channels, 6, 6), memory_format=given).normal_()
        y = arranged(x, net)
        assert torch.equal(x, y) and y.stride() == (36 * channels, 36, 6, 1)
    frames = torch.randn(2, 3, 1, 6, 6)
    assert arranged(frames, net) is frames
