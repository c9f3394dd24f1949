"""The step functions against closed forms and brute force."""

from __future__ import annotations

import itertools

import pytest
import torch

from engram.snn.engines.layer import SpikingLayer
from engram.snn.neurons import firing
from engram.snn.neurons.options import NeuronOptions
from engram.snn.neurons.scanning import eager_scan


def run(drive, **options):
    """drive: [T] -> spikes [T] of one neuron, in fp64."""
    layer = SpikingLayer(NeuronOptions(**options)).double()
    spikes, state = eager_scan(drive.double().view(-1, 1, 1), None, layer.params(2))
    return spikes.flatten(), state


@pytest.mark.parametrize("x", [0.0, 0.3125, 0.5, 0.984375, 1.0, -0.5])
def test_integrate_and_fire_counts_the_whole_thresholds_of_the_charge(x):
    spikes, state = run(torch.full((40,), x), neuron="if", threshold=0.75)
    count = min(max(int((40 * x + 1e-9) / 0.75), 0), 40)
    assert spikes.sum() == count
    assert state.v.item() == pytest.approx(40 * x - 0.75 * count)


def test_a_leaky_neuron_follows_the_geometric_series_and_never_reaches_a_threshold_above_it():
    below, state = run(torch.full((60,), 0.2), decay=0.8, threshold=1.01)  # 0.2 / (1 - 0.8) = 1
    assert below.sum() == 0
    assert state.v.item() == pytest.approx(1 - 0.8**60)
    above, _ = run(torch.full((60,), 0.2), decay=0.8, threshold=0.99, reset="hard")
    period = next(n for n in range(1, 60) if 1 - 0.8**n >= 0.99)
    assert above.nonzero().flatten().tolist() == list(range(period - 1, 60, period))


def test_soft_reset_keeps_what_is_above_the_threshold_and_hard_reset_drops_it():
    drive = torch.tensor([2.5, 0.0, 0.0])
    soft, left = run(drive, neuron="if", reset="soft")
    hard, nothing = run(drive, neuron="if", reset="hard")
    assert (soft.tolist(), left.v.item()) == ([1, 1, 0], 0.5)
    assert (hard.tolist(), nothing.v.item()) == ([1, 0, 0], 0.0)


def test_the_response_of_a_current_based_neuron_is_a_difference_of_exponentials():
    drive = torch.zeros(12)
    drive[0] = 1.0
    alpha, beta = 0.9, 0.6
    _, state = run(drive, neuron="cuba-lif", decay=alpha, synaptic_decay=beta, threshold=100.0)
    assert state.current.item() == pytest.approx(beta**11)
    assert state.v.item() == pytest.approx((alpha**12 - beta**12) / (alpha - beta))


def test_every_spike_raises_an_adaptive_threshold_which_then_decays():
    drive = torch.full((200,), 1.0)
    options = {"neuron": "adaptive-lif", "decay": 0.9, "adaptation": 0.5, "adaptation_decay": 0.95}
    adaptive, state = run(drive, **options)
    plain, _ = run(drive, neuron="lif", decay=0.9)
    gaps = adaptive.nonzero().flatten().diff().tolist()
    assert plain.sum() > 2 * adaptive.sum() > 0
    assert gaps[0] < max(gaps)
    times = adaptive.nonzero().flatten()
    assert state.adaptation.item() == pytest.approx((0.95 ** (199 - times).double()).sum().item())
    same, _ = run(drive, **{**options, "adaptation": 0.0})
    assert torch.equal(same, plain)


def test_a_refractory_neuron_is_silent_and_deaf_for_so_many_steps():
    spikes, state = run(torch.full((12,), 1.5), neuron="if", refractory=3)
    assert spikes.nonzero().flatten().tolist() == [0, 4, 8]
    assert state.v.item() == pytest.approx(3 * 0.5)  # what the spikes left; the drive of the other steps is lost
    assert state.rest.item() == 0


@pytest.mark.parametrize("neuron", ["if", "lif", "plif", "cuba-lif", "adaptive-lif"])
def test_gradients_through_time_are_those_of_finite_differences(monkeypatch, neuron):
    """With a smooth spike, so that there is something to differentiate."""
    monkeypatch.setattr(firing, "spike", lambda d, _surrogate, k: torch.sigmoid(k * d))
    for reset, detach in itertools.product(("soft", "hard"), (False,)):
        layer = SpikingLayer(NeuronOptions(neuron=neuron, reset=reset, detach_reset=detach)).double()
        drive = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
        state = eager_scan(torch.randn(2, 2, 3, dtype=torch.float64), None, layer.params(2))[1].detached()
        v = state.v.requires_grad_()

        def summary(drive, v, layer=layer, state=state):
            spikes, after = eager_scan(drive, state._replace(v=v), layer.params(2))
            return spikes, after.v

        assert torch.autograd.gradcheck(summary, (drive, v))


@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_a_detached_reset_passes_no_gradient_through_the_spike(reset):
    """By hand for two steps: u2 = alpha v1 + x2 with v1 = u1 - theta s1, or u1 (1 - s1)."""
    grads = {}
    for detach in (True, False):
        layer = SpikingLayer(NeuronOptions(decay=0.8, reset=reset, detach_reset=detach, surrogate="superspike"))
        drive = torch.tensor([1.3, 0.1]).view(2, 1, 1).requires_grad_()
        spikes, _ = eager_scan(drive, None, layer.params(2))
        spikes[1].sum().backward()
        grads[detach] = drive.grad[0].item()
    u2 = 0.8 * (0.3 if reset == "soft" else 0.0) + 0.1
    g1, g2 = 1 / (1 + 0.3) ** 2, 1 / (1 + abs(u2 - 1)) ** 2
    through = {"soft": (1.0, 1.0 - g1), "hard": (0.0, -1.3 * g1)}[reset]
    assert grads[True] == pytest.approx(g2 * 0.8 * through[0])
    assert grads[False] == pytest.approx(g2 * 0.8 * through[1])


def test_a_parametric_neuron_learns_its_decay_and_others_do_not():
    layer = SpikingLayer(NeuronOptions(neuron="plif", decay=0.7))
    assert torch.sigmoid(layer.decay_logit).item() == pytest.approx(0.7)
    layer(torch.rand(5, 2, 3)).sum().backward()
    assert layer.decay_logit.grad.item() > 0  # less leak, more spikes
    assert not list(SpikingLayer(NeuronOptions(decay=0.7)).parameters())
