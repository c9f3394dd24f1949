"""BatchNorm over steps: whose statistics are whose, and that each counts once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engram.backbone.nets.making import adapt, build
from engram.feedback.network.norms import StepNorm

SHAPE = (2, 8, 8)


def network(norm="step", unrolling="engineering", connections="layer3>layer1", normalisation="batch", **options):
    """A vgg-tiny with strong additive feedback, whose BatchNorms keep the statistics of the last batch alone."""
    torch.manual_seed(0)
    chosen = {"normalisation": normalisation}
    inner = build("vgg-tiny", chosen, SHAPE, 3, torch.zeros(2), torch.ones(2)).backbone
    given = {"norm": norm, "unrolling": unrolling, "connections": connections, **options}
    net = adapt(inner, "feedback.additive", given).train()
    for path in net.paths:
        nn.init.normal_(path.conv.weight)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    return net


@pytest.fixture
def batch():
    return torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(1))


def counts(net):
    return {name: int(value) for name, value in net.named_buffers() if name.endswith("num_batches_tracked")}


@torch.no_grad()
def test_each_step_has_the_statistics_of_its_own_values(batch):
    net, seen = network(), {}
    for norm in net.step_norms:
        norm.register_forward_hook(lambda norm, given, _out: seen.setdefault(norm, []).append(given[0]))
    net(batch)
    assert len(net.step_norms) == 2  # the first stage runs once and keeps its own
    for norm in net.step_norms:
        assert len(norm.norms) == len(seen[norm]) == 4
        for values, each in zip(seen[norm], norm.norms, strict=True):
            torch.testing.assert_close(each.running_mean, values.mean((0, 2, 3)))
            torch.testing.assert_close(each.running_var, values.var((0, 2, 3)))
    means = torch.stack([each.running_mean for each in net.step_norms[0].norms])
    assert (means[1:] - means[:-1]).abs().amax() > 0.1


@torch.no_grad()
def test_in_evaluation_a_step_is_what_it_was_in_training_and_with_shared_statistics_is_not(batch):
    errors = {}
    for norm in ("step", "shared"):
        net = network(norm)
        trained, evaluated = net.forward_steps(batch), net.eval().forward_steps(batch)
        errors[norm] = ((evaluated - trained).flatten(1).norm(dim=1) / trained.flatten(1).norm(dim=1)).tolist()
    assert max(errors["step"]) < 0.01  # the unbiased variance that is kept, and the biased one that is used
    assert max(errors["shared"]) > 0.1


@torch.no_grad()
def test_steps_beyond_the_last_have_the_statistics_of_the_last(batch):
    net = network(steps=2)
    frames = batch[:, None].expand(-1, 5, -1, -1, -1)
    net(frames)
    for norm in net.step_norms:
        assert [int(each.num_batches_tracked) for each in norm.norms] == [1, 4]
    net.eval()
    for norm in net.step_norms:
        norm.norms[1].running_mean += 0.5  # what only steps from the second on see
    changed = net.forward_steps(frames)
    for norm in net.step_norms:
        norm.norms[1].running_mean -= 0.5
    differs = (net.forward_steps(frames) - changed).abs().amax((1, 2)) > 1e-3
    assert differs.tolist() == [False, True, True, True, True]


@torch.no_grad()
def test_there_is_a_norm_for_each_step_in_which_a_stage_runs(batch):
    net = network(unrolling="biological")
    net(batch)
    assert [len(norm.norms) for norm in net.step_norms] == [6, 5, 4]
    assert set(counts(net).values()) == {1}


def test_computing_again_counts_once_and_changes_no_number(batch):
    found = {}
    for recompute in (False, True):
        net = network(dropout=0.2)
        net.recompute = recompute
        torch.manual_seed(2)
        net(batch).square().sum().backward()
        assert set(counts(net).values()) == {1}
        found[recompute] = [*net.state_dict().values(), *(each.grad for each in net.parameters())]
    for plain, again in zip(found[False], found[True], strict=True):
        assert torch.equal(plain, again)


@torch.no_grad()
def test_what_a_tap_looks_at_counts_once(batch):
    net, tapped = network(connections="layer3>layer2"), network(connections="layer3>layer2")
    features, seen = net.forward_steps(batch), tapped.forward_steps(batch, lambda _site, value: value)
    assert torch.equal(features, seen)
    assert set(counts(tapped).values()) == {1}
    for plain, other in zip(net.buffers(), tapped.buffers(), strict=True):
        assert torch.equal(plain, other)


def test_a_network_without_batch_norm_has_nothing_to_tell_apart(batch):
    step, shared = (network(norm, normalisation="group") for norm in ("step", "shared"))
    assert not step.step_norms and not any(isinstance(module, StepNorm) for module in step.modules())
    assert torch.equal(step(batch), shared(batch))


@torch.no_grad()
def test_a_norm_that_two_stages_share_stays_one():
    inner = build("vgg-tiny", {"width": 0.1}, SHAPE, 3, torch.zeros(2), torch.ones(2)).backbone
    inner.body = nn.ModuleList([inner.body[0], nn.Sequential(norm := nn.BatchNorm2d(2), nn.ReLU(), norm)])
    inner.stage_channels, inner.tail = (2, 2), nn.Flatten()
    net = adapt(inner, "feedback.gated", {"connections": "layer2>layer1"})
    assert net.inner.body[1][0] is net.inner.body[1][2] and len(net.step_norms) == 1
