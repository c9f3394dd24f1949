import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn.neurons import IntegrateFire, if_scan, if_start, if_step


def run(drive, threshold):
    """drive: [T, B] -> spikes [T, B], one step after the other."""
    v, spikes = if_start(threshold, drive[0]), []
    for x in drive:
        s, v = if_step(x, v, threshold)
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
    threshold = torch.rand(1, 4, 1, 1, generator=torch.Generator().manual_seed(seed + 1)) + 0.1
    expected, _ = run(drive, threshold)
    assert torch.equal(if_scan(drive, threshold, torch.empty_like(drive)), expected)
    assert torch.equal(if_scan(drive, threshold, drive), expected)
    assert drive.unique().tolist() in ([0.0], [1.0], [0.0, 1.0])  # overwritten with the spikes


def test_neurons_take_one_threshold_per_channel_or_one_for_all():
    drive = torch.rand(7, 2, 3, 4, 4).contiguous()
    channels = IntegrateFire(torch.tensor([0.5, 1.0, 2.0]), torch.zeros(3, dtype=torch.bool))
    for channel, theta in enumerate((0.5, 1.0, 2.0)):
        expected, _ = run(drive[:, :, channel], torch.tensor(theta))
        assert torch.equal(channels(drive)[:, :, channel], expected)
    layer = IntegrateFire(torch.tensor([0.5]), torch.zeros(1, dtype=torch.bool))
    assert torch.equal(layer(drive), run(drive, torch.tensor(0.5))[0])
