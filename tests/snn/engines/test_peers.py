"""The engines on the peers' cells: the same spikes on shared parameters, and the conventions that differ."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engram.snn.engines.layer import SpikingLayer
from engram.snn.neurons.options import NeuronOptions

snntorch = pytest.importorskip("snntorch")

SNNTORCH = [
    NeuronOptions(engine="snntorch", neuron=neuron, reset=reset, detach_reset=detach, surrogate="sigmoid")
    for neuron in ("if", "lif", "plif", "cuba-lif")
    for reset in ("soft", "hard")
    for detach in (True, False)
]
NORSE = [
    NeuronOptions(engine="norse", neuron=neuron, reset=reset, detach_reset=detach, surrogate=surrogate)
    for neuron, reset, detach in (
        ("if", "hard", False),
        ("lif", "soft", True),
        ("lif", "hard", False),
        ("plif", "soft", False),
        ("plif", "hard", True),
        ("cuba-lif", "hard", False),
    )
    for surrogate in ("superspike", "triangle", "sigmoid")
]


def both(options, drive, state=None):
    """(spikes, last state, gradients) of the peer's engine and of ours."""
    results = []
    for engine in (options.engine, "fused"):
        layer = SpikingLayer(replace(options, engine=engine))
        own = drive.clone().requires_grad_()
        spikes, after = layer.scan(own, state)
        ((spikes * drive).sum() + after.v.square().sum()).backward()
        results.append((spikes, after, [own.grad, *(p.grad for p in layer.parameters())]))
    return results


def drive(seed=0):
    """[T, B, C] random: no potential ever meets the threshold exactly."""
    return torch.randn(25, 4, 20, generator=torch.Generator().manual_seed(seed))


def name(options):
    return f"{options.engine}-{options.neuron}-{options.reset}-{options.detach_reset}-{options.surrogate}"


@pytest.mark.parametrize("options", SNNTORCH, ids=name)
def test_snntorch_agrees_bit_for_bit(options):
    (peer, after, grads), (ours, our_after, our_grads) = both(options, drive())
    assert torch.equal(peer, ours)
    assert torch.equal(after.v, our_after.v)
    torch.testing.assert_close(grads, our_grads, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", NORSE, ids=name)
def test_norse_agrees_to_rounding(options):
    pytest.importorskip("norse")
    (peer, after, grads), (ours, our_after, our_grads) = both(options, drive())
    assert torch.equal(peer, ours)
    torch.testing.assert_close(after.v, our_after.v, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(grads, our_grads, atol=5e-5, rtol=1e-3)


@pytest.mark.parametrize("neuron", ["lif", "cuba-lif"])
@pytest.mark.parametrize("engine", ["snntorch", "norse"])
def test_a_state_goes_in_and_out(engine, neuron):
    pytest.importorskip(engine)
    options = NeuronOptions(
        engine=engine, neuron=neuron, reset="hard", detach_reset=False, surrogate="superspike", decay=0.8
    )
    layer, x = SpikingLayer(options), drive()
    whole, end = layer.scan(x)
    first, between = layer.scan(x[:10])
    second, last = layer.scan(x[10:], between)
    assert torch.equal(torch.cat((first, second)), whole)
    torch.testing.assert_close(end.v, last.v, atol=1e-6, rtol=1e-5)


def test_norse_holds_refractory_neurons_as_we_do():
    pytest.importorskip("norse")
    options = NeuronOptions(
        engine="norse", neuron="cuba-lif", reset="hard", detach_reset=False, surrogate="superspike", refractory=3
    )
    (peer, after, _), (ours, our_after, _) = both(options, drive())
    assert torch.equal(peer, ours)
    assert torch.equal(after.rest, our_after.rest)
    assert 0 < peer.sum() < SpikingLayer(replace(options, refractory=0))(drive()).sum()


def test_at_the_threshold_itself_norse_is_silent_and_we_are_not():
    pytest.importorskip("norse")
    tie = torch.ones(1, 1, 1)
    options = NeuronOptions(engine="norse", surrogate="superspike")
    (peer, _, _), (ours, _, _) = both(options, tie)
    assert (peer.item(), ours.item()) == (0, 1)
    above = torch.nextafter(tie, torch.tensor(2.0)) + 1e-6
    assert both(options, above)[0][0].item() == 1


def snntorch_alone(x, **options):
    cell = snntorch.Leaky(beta=0.5, **options)
    mem, spikes = cell.reset_mem(), []
    for step in x:
        fired, mem = cell(step, mem)
        spikes.append(fired)
    return torch.stack(spikes)


def test_why_snntorch_s_own_resets_are_not_used():
    """By default they come a step late, after the decay; without delay, what is left above fires at 2 theta only."""
    ours, x = SpikingLayer(NeuronOptions(decay=0.5)), drive()
    assert not torch.equal(snntorch_alone(x), ours(x))
    large = torch.zeros(3, 1, 1)
    large[0] = 4.5  # leaves 3.5, then 1.75 and 0.875: three spikes but for another reset
    assert ours(large).sum() == 2
    assert not torch.equal(snntorch_alone(large, reset_delay=False), ours(large))
    small = x.clamp(max=1.4)  # nothing above the threshold is left after a reset
    assert torch.equal(snntorch_alone(small, reset_delay=False), ours(small))


def test_what_snntorch_leaves_above_the_threshold_is_silent():
    x = torch.zeros(6, 1, 1)
    x[0] = 2.5
    cell = snntorch.Leaky(beta=1.0, reset_delay=False)
    mem, seen = cell.reset_mem(), []
    for step in x:
        spike, mem = cell(step, mem)
        seen.append((spike.item(), mem.item()))
    assert seen == [(1, 1.5)] + [(0, 1.5)] * 5
    assert SpikingLayer(NeuronOptions(neuron="if"))(x).sum() == 2
    x[:] = 2.5
    assert snntorch_alone(x, reset_delay=False).sum() == 6  # at twice the threshold it fires as it should


def test_what_a_late_hard_reset_takes():
    """Of a leaky cell the potential, of one with a current what that brings in the same step as well."""
    leaky = snntorch.Leaky(beta=0.5, reset_mechanism="zero")
    _, mem = leaky(torch.tensor([0.25]), torch.tensor([2.0]))
    assert mem.item() == 0.25
    synaptic = snntorch.Synaptic(alpha=0.5, beta=0.5, reset_mechanism="zero")
    _, current, mem = synaptic(torch.tensor([0.25]), torch.tensor([1.0]), torch.tensor([2.0]))
    assert (current.item(), mem.item()) == (0.75, 0)


def test_snntorch_s_helper_resets_direct_children_alone():
    from snntorch import utils

    cell = snntorch.Leaky(beta=0.5, init_hidden=True)
    cell(torch.ones(1, 1))
    utils.reset(torch.nn.Sequential(torch.nn.Sequential(cell)))
    assert cell.mem.item() == 1
    utils.reset(torch.nn.Sequential(snntorch.Leaky(beta=0.5, init_hidden=True)))  # another network altogether
    assert cell.mem.item() == 0


def test_the_import_of_norse_is_quiet():
    """Its use of torch.jit is deprecated; warnings are errors in these tests, so that arriving here says it."""
    pytest.importorskip("norse")
    SpikingLayer(NeuronOptions(engine="norse", surrogate="triangle"))
