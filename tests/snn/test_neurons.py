import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.snn.neurons.firing import Params, State
from engram.snn.neurons.integrate_fire import HALF, IntegrateFire, if_scan, if_step


def one_step(x, v, threshold):
    """`if_step` with soft reset and nothing else: (spikes, potential)."""
    p = Params("if", torch.ones(()), 0.0, 0.0, 0.0, threshold, "soft", False, 0, "arctan", 1.0)
    spikes, state = if_step(x, State(v), p)
    return spikes, state.v


def start(threshold, like):
    return (HALF * threshold).expand_as(like).clone()


def run(drive, threshold):
    """drive: [T, B] -> spikes [T, B], one step after the other."""
    v, spikes = start(threshold, drive[0]), []
    for x in drive:
        s, v = one_step(x, v, threshold)
        spikes.append(s)
    return torch.stack(spikes), v


def test_golden_trace():
    spikes, v = run(torch.full((5, 1), 0.5), torch.tensor(1.0))
    assert spikes.flatten().tolist() == [1, 0, 1, 0, 1]  # 0.5 + 0.5 reaches 1, and reaching is firing
    assert v.item() == 0.0


def test_potential_above_threshold_is_kept_for_later():
    spikes, v = run(torch.tensor([[3.0], [0.0], [0.0], [0.0]]), torch.tensor(1.0))
    assert spikes.flatten().tolist() == [1, 1, 1, 0]
    assert v.item() == 0.5


@given(
    drive=st.lists(st.integers(-64, 128), min_size=1, max_size=20),
    threshold=st.integers(1, 64),
    steps=st.integers(1, 40),
)
@settings(deadline=None)
def test_a_constant_drive_gives_the_clip_floor_shift_count(drive, threshold, steps):
    x, theta = torch.tensor(drive, dtype=torch.float64) / 16, torch.tensor(threshold, dtype=torch.float64) / 16
    spikes, _ = run(x.expand(steps, -1), theta)
    # x >= 0: the count rounds to nearest and saturates at one spike a step; x < 0 never fires
    expected = torch.floor((steps * x + theta / 2) / theta).clamp(0, steps)
    assert torch.equal(spikes.sum(0), expected)


@given(seed=st.integers(0, 1000), steps=st.integers(1, 12))
@settings(deadline=None)
def test_scan_is_the_step_repeated_bit_for_bit(seed, steps):
    drive = torch.randn(steps, 3, 4, 2, 2, generator=torch.Generator().manual_seed(seed))
    one = torch.ones(())
    expected, left = run(drive, one)
    v = start(one, drive[0])
    assert torch.equal(if_scan(drive, v, torch.empty_like(drive)), expected)
    assert torch.equal(v, left)
    assert torch.equal(if_scan(drive, start(one, drive[0]), drive), expected)
    assert drive.unique().tolist() in ([0.0], [1.0], [0.0, 1.0])  # overwritten with the spikes


def neurons(**changes):
    made = IntegrateFire(torch.tensor([0.5, 1.0, 2.0]), torch.zeros(3, dtype=torch.bool))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize("start", [torch.tensor([0.25]), torch.tensor([0.0, 0.5, -1.0]), torch.rand(3, 4, 5)])
def test_potentials_may_start_anywhere_by_layer_channel_or_neuron(start):
    drive = torch.rand(7, 2, 3, 4, 5)
    spikes = neurons(start=start)(drive)
    shape = start.view(-1, 1, 1) if start.ndim == 1 else start
    v = shape.expand(3, 4, 5).expand(2, 3, 4, 5)
    for x, s in zip(drive, spikes, strict=True):
        expected, v = one_step(x, v, torch.tensor(1.0))
        assert torch.equal(s, expected)


def test_a_current_is_added_to_every_step():
    drive, current = torch.randint(-4, 8, (6, 2, 3, 4, 4)) / 4, torch.tensor([0.25, -0.5, 0.0])
    assert torch.equal(neurons(current=current)(drive), neurons()(drive + current.view(3, 1, 1)))
    flat = drive[..., 0, 0]
    assert torch.equal(neurons(current=current)(flat), neurons()(flat + current))


def test_a_neuron_that_starts_at_minus_infinity_is_silent():
    drive = torch.full((5, 1, 3, 1, 1), 2.0)
    v = neurons().begin(drive[0])
    v[:, 1] = -torch.inf
    assert neurons()(drive, v=v).sum(0).flatten().tolist() == [5, 0, 5]
