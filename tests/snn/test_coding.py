import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.backbone.errors import UserError
from engram.snn.conversion.coding import DELTA, delta_events, delta_sums, encode

CODINGS = ["constant", "poisson", "latency", "delta"]


def pictures(seed=0, shape=(3, 2, 8, 8)):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    x.view(-1)[:4] = torch.tensor([0.0, 1.0, 0.5, 0.25])
    return x


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("steps", [1, 7])
def test_frames_are_pictures_over_time(coding, steps):
    frames = encode(coding, pictures(), steps, seeded())
    assert frames.shape == (3, steps, 2, 8, 8)
    assert frames.dtype == torch.float32
    assert float(frames.min()) >= 0
    assert float(frames.max()) <= 1
    assert torch.equal(frames, encode(coding, pictures(), steps, seeded()))


def test_constant_frames_are_the_picture_and_take_no_memory():
    x = pictures()
    frames = encode("constant", x, 5)
    assert all(torch.equal(frame, x) for frame in frames.unbind(1))
    assert frames.data_ptr() == x.data_ptr()


def test_poisson_frames_have_the_pixels_as_probabilities():
    x, steps = pictures(), 4000
    frames = encode("poisson", x, steps, seeded())
    assert set(frames.unique().tolist()) == {0.0, 1.0}
    error = (frames.mean(1) - x).abs() / (x * (1 - x) / steps).sqrt().clamp_min(1e-9)
    assert float(error.max()) < 5  # standard deviations, of 384 pixels
    assert float(error.square().mean()) == pytest.approx(1, abs=0.3)
    assert bool((frames.mean(1)[x == 0] == 0).all())
    assert bool((frames.mean(1)[x == 1] == 1).all())
    centred = frames - x.unsqueeze(1)
    assert float((centred[:, 1:] * centred[:, :-1]).mean().abs()) < 1e-3  # steps are independent
    assert not torch.equal(frames, encode("poisson", x, steps, seeded(1)))
    with pytest.raises(ValueError, match="generator"):
        encode("poisson", x, 3)


@given(seed=st.integers(0, 1000), steps=st.integers(1, 300))
@settings(deadline=None, max_examples=40)
def test_latency_frames_switch_on_once_and_their_mean_is_the_pixel_to_one_step(seed, steps):
    x = pictures(seed, (2, 1, 4, 4))
    frames = encode("latency", x, steps)
    assert bool((frames.diff(dim=1) >= 0).all())
    assert bool((frames.mean(1) <= x + 1e-3 / steps + 1e-6).all())
    assert bool((frames.mean(1) > x - 1 / steps - 1e-6).all())


@pytest.mark.parametrize("steps", [1, 3, 10, 49, 255])
def test_latency_is_exact_for_pixels_on_the_grid(steps):
    x = (torch.arange(steps + 1) / steps).view(1, 1, 1, -1)
    frames = encode("latency", x, steps)
    assert torch.equal(frames.sum(1), (x * steps).round())
    first = torch.where(frames.sum(1) > 0, frames.argmax(1), steps)
    assert torch.equal(first, steps - torch.arange(steps + 1).view(1, 1, 1, -1))


@pytest.mark.parametrize("steps", [4, 16, 64])
def test_delta_frames_close_in_on_the_picture(steps):
    x = pictures()
    frames, events = encode("delta", x, steps), delta_events(x.unsqueeze(1).expand(-1, steps, -1, -1, -1))
    assert torch.equal(events.sum(1), (x / DELTA + 1e-4).floor().clamp_max(steps).long())
    assert bool((frames.diff(dim=1) >= 0).all())
    if steps >= 16:
        assert bool(((frames[:, -1] - x).abs() < DELTA * 1.001).all())
    if steps == 64:
        assert float((frames.mean(1) - x).abs().max()) < DELTA + 1 / 8  # the way up takes at most 16 of 64 steps


def test_delta_events_of_a_moving_picture_follow_it_in_both_directions():
    time = torch.arange(200).view(1, -1, 1, 1, 1)
    frames = 0.5 + 0.4 * torch.sin(time / 20 + torch.arange(4).view(1, 1, 1, 1, 4))
    events = delta_events(frames, 0.05)
    assert set(events.unique().tolist()) == {-1, 0, 1}
    followed = delta_sums(events, torch.float32, 0.05)
    assert float((followed - frames)[:, 30:].abs().max()) < 0.0501
    still = delta_events(frames[:, 50:51].expand(-1, 200, -1, -1, -1), 0.05)
    assert not bool(still[:, 100:].any())  # what does not change sends nothing


def test_a_step_upwards_and_back_is_sent_event_by_event():
    frames = torch.tensor([0.3, 0.3, 0.3, 0.3, 0.1, 0.1, 0.1]).view(1, -1, 1, 1, 1)
    events = delta_events(frames, 0.1)
    assert events.flatten().tolist() == [1, 1, 1, 0, -1, -1, 0]


@pytest.mark.parametrize("coding", CODINGS)
def test_the_mean_of_normalised_frames_is_the_normalised_mean(coding):
    frames = encode(coding, pictures(), 9, seeded())
    torch.testing.assert_close(((frames - 0.3) / 0.2).mean(1), (frames.mean(1) - 0.3) / 0.2)


def test_bad_input_is_named():
    with pytest.raises(UserError, match="Did you mean poisson"):
        encode("poison", pictures(), 4)
    with pytest.raises(UserError, match="steps must be at least 1; got 0"):
        encode("constant", pictures(), 0)
    for bad in (pictures() * 255, pictures() - 1, pictures() * torch.nan):
        with pytest.raises(UserError, match=r"pixels to encode must be in \[0, 1\]"):
            encode("latency", bad, 4)
