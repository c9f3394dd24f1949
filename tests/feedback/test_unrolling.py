"""Training through steps: units that are switched off, gradients that are cut, memory that does not grow, resuming."""

from __future__ import annotations

import weakref
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engram.backbone.data.sets import MemorySplit
from engram.backbone.errors import UserError
from engram.backbone.experiments.configs import TrainConfig
from engram.backbone.experiments.train import Train
from engram.backbone.hardware import Machine
from engram.backbone.nets.making import adapt, build
from engram.backbone.objectives.cross_entropy import CrossEntropy
from engram.backbone.objectives.every_step import EveryStep
from engram.backbone.options import in_full, options_of
from engram.backbone.registry import Registry
from engram.backbone.training.loop import Trainer
from engram.backbone.training.options import TrainingOptions

SHAPE = (2, 8, 8)


def network(adapter="feedback.additive", shape=SHAPE, **options):
    torch.manual_seed(0)
    inner = build("vgg-tiny", {"normalisation": "none"}, shape, 3, torch.zeros(2), torch.ones(2)).backbone
    net = adapt(inner, adapter, options).train()
    for path in net.paths:
        nn.init.normal_(path.conv.weight, std=0.1)
    return net


@torch.no_grad()
def test_units_are_switched_off_anew_at_every_step_of_a_training(images):
    net, seen = network(dropout=0.5, connections="layer3>layer2"), {}

    def see(site, value):
        if site.stage is not None:
            seen[site.stage, site.step] = value[0].clone()
        return value

    torch.manual_seed(3)
    net.forward_steps(images, see)
    off = {place: (value == 0).float().mean().item() for place, value in seen.items()}
    plain = network(connections="layer3>layer2")
    assert torch.equal(seen[0, 3], plain.inner.apply_stage(0, images))  # what is not run again loses nothing
    drive = plain.inner.apply_stage(1, plain.inner.apply_stage(0, images))
    kept = (seen[1, 0] != 0) & (drive != 0)
    torch.testing.assert_close(seen[1, 0][kept], 2 * drive[kept])
    masks = [(seen[1, step] == 0) & (seen[1, step - 1] != 0) for step in (1, 2, 3)]
    assert all(mask.any() for mask in masks) and all(off[1, step] > 0.4 for step in range(4))
    assert torch.equal(net.eval()(images), plain.eval()(images))


def loop(net, x, cut):
    """The features of additive feedback from the last stage to the first, whose gradient is cut before some steps."""
    inner, (path,) = net.inner, net.paths
    drive, top, found = inner.apply_stage(0, x), None, []
    for step in range(net.steps):
        value = drive
        if top is not None:
            fed = path(top.detach() if step in cut else top)
            value = drive + fed.repeat_interleave(4, 2).repeat_interleave(4, 3)
        top = inner.apply_stage(2, inner.apply_stage(1, value))
        found.append(inner.apply_tail(top))
    return torch.stack(found)


@pytest.mark.parametrize(("truncate", "cut"), [(1, (1, 2, 3, 4)), (2, (1, 3)), (3, (2,)), (5, ()), (9, ()), (None, ())])
def test_gradients_are_cut_from_the_last_step_back_and_reach_the_image_from_every_step(images, truncate, cut):
    net = network(steps=5, truncate=truncate, connections="layer3>layer1")
    weights = torch.randn(5, 5, net.feature_dim, generator=torch.Generator().manual_seed(2))
    ours = torch.autograd.grad((net.forward_steps(images) * weights).sum(), list(net.parameters()))
    theirs = torch.autograd.grad((loop(net, images, cut) * weights).sum(), list(net.parameters()))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


class Held(TorchDispatchMode):
    """The most bytes that tensors made inside hold at any time, ``peak``."""

    def __init__(self):
        super().__init__()
        self.sizes, self.now, self.peak = {}, 0, 0

    @classmethod
    def _should_skip_dynamo(cls):
        return False  # True, as it is unless said, imports the compiler

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            storage = each.untyped_storage() if isinstance(each, torch.Tensor) else None
            if storage is not None and storage._cdata not in self.sizes:
                self.sizes[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.free, storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
        return out

    def free(self, key):
        self.now -= self.sizes.pop(key)


def test_with_checkpoints_memory_does_not_grow_with_the_steps():
    x = torch.randn(4, 2, 16, 16, generator=torch.Generator().manual_seed(1))

    def peak(steps, recompute):
        net = network("feedback.gated", (2, 16, 16), steps=steps)
        net.recompute = recompute
        with Held() as held:
            net.forward_steps(x).square().mean().backward()
        return held.peak

    assert peak(16, False) > 2.5 * peak(4, False)
    assert peak(16, True) < 1.3 * peak(4, True)


def trainer(**options):
    """Of a network with dropout, cut gradients and a discounted loss."""
    torch.manual_seed(0)
    given = {"dropout": 0.3, "truncate": 2, "steps": 3, **options}
    adapters = [in_full(Registry.discover(), "adapters", "feedback.gated", given)]
    made = build("vgg-tiny", {"width": 0.25}, SHAPE, 3, torch.zeros(2), torch.ones(2), adapters=adapters)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (40, *SHAPE), generator=generator).to(torch.uint8)
    data = MemorySplit(images, torch.arange(40) % 3)
    chosen = TrainingOptions(epochs=2, batch_size=16, optimizer="sgd", lr=0.05, gradient_checkpointing=True)
    return Trainer(made, data, chosen, Machine("cpu", "fp32"), EveryStep(CrossEntropy(), 0.0, 0.7))


def test_a_training_that_is_broken_off_goes_on_to_the_same_weights():
    whole, first = trainer(), trainer()
    while not whole.done:
        whole.advance()
    while first.step < 4:
        first.advance(0)
    saved = first.state_dict()
    second = trainer()
    second.load_state_dict(saved)
    while not second.done:
        second.advance(0)
    ours, theirs = (each.model.state_dict() for each in (second, whole))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert (theirs["backbone.paths.0.conv.weight"] != 0).any()


def test_a_discount_of_the_loss_changes_what_is_learned():
    found = []
    for discount in (1.0, 0.5):
        ours = trainer()
        ours.objective = EveryStep(CrossEntropy(), 0.0, discount)
        ours.advance()
        found.append(ours.model.state_dict()["head.weight"].clone())
    assert not torch.equal(*found)


@pytest.mark.parametrize(
    "given",
    [
        *({"steps": 0}, {"dropout": 1.0}, {"dropout": -0.1}, {"truncate": 0}, {"unrolling": "slow"}, {"norm": "each"}),
        *({"readout": "first"}, {"steps": 2.5}, {"chekpoint": 2}),
    ],
)
def test_values_that_cannot_be_are_refused(given):
    with pytest.raises(UserError, match=next(iter(given))):
        options_of(Registry.discover(), "adapters", "feedback.gated", given)


def test_learned_weights_of_the_read_out_need_a_loss_that_reaches_them():
    ours = trainer(readout="learned")
    data = SimpleNamespace(train=ours.data, validation=None, classes=("a", "b", "c"))
    beginning: Any = SimpleNamespace(model=ours.model, data=data)
    services: Any = SimpleNamespace(device="cpu", inputs={})
    plain = TrainConfig.resolve({"precision": "fp32"})
    assert isinstance(Train(plain, services).objective(beginning), CrossEntropy)
    with pytest.raises(UserError, match="the read-out beside --tet or --discount must be one without learned weights"):
        Train(replace(plain, discount=0.5), services).objective(beginning)
