"""Corruptions against their definitions, written again in numpy and scipy, and against Pillow."""

from __future__ import annotations

import colorsys
import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats

from engram.backbone.data.corruptions.applying import corrupt
from engram.backbone.data.corruptions.draws import Draws
from engram.backbone.data.corruptions.elastic import affine_places
from engram.backbone.data.corruptions.occlusion import GREY, hidden_by_lot
from engram.backbone.data.corruptions.options import KINDS, OCCLUSIONS, PROTOCOLS, SEVERITIES
from engram.backbone.errors import UserError
from engram.backbone.seeding import derive

DEVIATION = (0.04, 0.06, 0.08, 0.09, 0.10)
PHOTONS = (500, 250, 100, 75, 50)
SHARE = (0.01, 0.02, 0.03, 0.05, 0.07)
PLACES = torch.arange(100)


def pictures(count=100, channels=3, height=24, width=20):
    """Smooth ones, with black and white in them."""
    noise = np.random.default_rng(5).normal(size=(count, channels, height, width))
    smooth = ndimage.gaussian_filter(noise, (0, 0, 1.5, 1.5))
    return torch.from_numpy((127 + 400 * smooth).clip(0, 255).astype(np.uint8))


def as_images(x):
    return [Image.fromarray(each.permute(1, 2, 0).numpy().squeeze()) for each in x]


def as_tensor(images):
    arrays = (np.asarray(each) for each in images)
    return torch.from_numpy(np.stack([a if a.ndim == 3 else a[..., None] for a in arrays])).permute(0, 3, 1, 2)


def truncates_to(found, levels):
    """Every value is the next lower whole number; what is a millionth below one is that: an error of rounding."""
    np.testing.assert_array_equal(found.numpy(), np.floor(levels + 1e-6).clip(0, 255))


def draws(kind, severity, count, seed=0):
    return Draws.of(derive(seed, f"corruption/{kind}", severity), torch.arange(count))


def outcomes(kind, severity):
    """What becomes of each grey level: values [256 levels, outcomes] and their probabilities."""
    level = np.arange(256)[:, None]
    if kind == "gaussian-noise":
        value = np.arange(256)
        scale = 255 * DEVIATION[severity - 1]
        below = stats.norm.cdf(np.append(value[1:], np.inf), level, scale)
        return value, np.diff(below, axis=1, prepend=0)
    if kind == "shot-noise":
        photons = np.arange(2 * PHOTONS[severity - 1])
        chance = stats.poisson.pmf(photons, level / 255 * PHOTONS[severity - 1])
        return np.floor((photons / PHOTONS[severity - 1]).clip(0, 1) * 255 + 1e-9), chance
    share = SHARE[severity - 1]
    value = np.broadcast_to(np.array([0, 255, 0]), (256, 3)).copy()
    value[:, 2] = level[:, 0]
    return value, np.array([share / 2, share / 2, 1 - share])


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("kind", ["gaussian-noise", "shot-noise", "impulse-noise"])
def test_noise_of_every_grey_level_has_mean_and_deviation_of_its_distribution(kind, severity):
    value, chance = outcomes(kind, severity)
    mean = (value * chance).sum(1)
    variance = ((value - mean[:, None]) ** 2 * chance).sum(1)
    fourth = ((value - mean[:, None]) ** 4 * chance).sum(1)
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(100, 3, -1, -1)
    found = corrupt(levels, PLACES, kind, severity).double().numpy().transpose(0, 1, 2, 3).reshape(300, 256)
    assert (np.abs(found.mean(0) - mean) <= 4.5 * np.sqrt(variance / 300) + 1e-2).all()
    spread = ((found - mean) ** 2).mean(0)
    assert (np.abs(spread - variance) <= 6 * np.sqrt((fourth - variance**2) / 300) + 1e-2).all()
    assert abs((found - mean).mean()) < 4.5 * np.sqrt(variance.mean() / found.size) + 1e-3  # over all levels as well
    assert spread.mean() == pytest.approx(variance.mean(), rel=0.03 if kind != "impulse-noise" else 0.1)


def test_noise_of_neighbours_channels_and_images_has_nothing_in_common():
    grey = torch.full((100, 3, 16, 16), 128, dtype=torch.uint8)
    noise = corrupt(grey, PLACES, "gaussian-noise", 5).double() - 127.5
    noise /= noise.std()
    shifted = [noise.roll(1, side) for side in range(4)]
    assert all(abs((noise * each).mean()) < 0.012 for each in shifted)  # 3.3 standard errors
    again = corrupt(grey, PLACES, "gaussian-noise", 5, seed=1).double()
    assert abs((noise * (again - 127.5) / again.std()).mean()) < 0.012


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_blur_is_that_of_scipy(severity):
    x = pictures()
    deviation = (0.4, 0.6, 0.7, 0.8, 1.0)[severity - 1]
    blurred = ndimage.gaussian_filter(x.numpy() / 255, (0, 0, deviation, deviation), mode="nearest", truncate=4.0)
    truncates_to(corrupt(x, PLACES, "gaussian-blur", severity), blurred * 255)
    large = pictures(2, height=64, width=70)
    blurred = ndimage.gaussian_filter(large.double().numpy(), (0, 0, *(2 * [2 * deviation])), mode="nearest")
    truncates_to(corrupt(large, PLACES[:2], "gaussian-blur", severity), blurred)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_raises_the_value_of_hsv_and_contrast_draws_to_the_mean(severity):
    x = pictures()
    share = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    mean = x.double().mean((2, 3), keepdim=True)
    truncates_to(corrupt(x, PLACES, "contrast", severity), ((x.double() - mean) * share + mean).numpy())
    x = x[:20, :, :8, :8]
    x[0] = 0
    more = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    want = np.empty(x.shape)
    for image, row, column in np.ndindex(20, 8, 8):
        hue, saturation, value = colorsys.rgb_to_hsv(*(x[image, :, row, column].double() / 255).tolist())
        want[image, :, row, column] = colorsys.hsv_to_rgb(hue, saturation, min(value + more, 1))
    truncates_to(corrupt(x, PLACES[:20], "brightness", severity), want * 255)
    grey = x[:, :1]
    truncates_to(corrupt(grey, PLACES[:20], "brightness", severity), (grey.double() + 255 * more).numpy())


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 23, 41), (1, 8, 8)])
def test_jpeg_and_pixelate_are_those_of_pillow(shape, severity):
    x = pictures(10, *shape)
    stored = []
    for image in as_images(x):
        image.save(file := io.BytesIO(), "JPEG", quality=(80, 65, 58, 50, 40)[severity - 1])
        stored.append(Image.open(file))
    difference = (corrupt(x, PLACES[:10], "jpeg", severity).int() - as_tensor(stored).int()).abs()
    assert difference.float().mean() <= 0.02  # none with libjpeg-turbo 3
    share, (_, height, width) = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1], shape
    small = [each.resize((int(width * share), int(height * share)), Image.Resampling.BOX) for each in as_images(x)]
    large = as_tensor([each.resize((width, height), Image.Resampling.BOX) for each in small])
    assert torch.equal(corrupt(x, PLACES[:10], "pixelate", severity), large)


@pytest.mark.parametrize("severity", [1, 4, 5])
def test_motion_blur_is_half_a_gaussian_along_a_line(severity):
    x = pictures(2)
    radius, deviation = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))[severity - 1]
    weights = np.exp(-0.5 * (np.arange(2 * radius + 1) / deviation) ** 2)
    angles = np.radians(-45 + 90 * draws("motion-blur", severity, 2).uniform().numpy())
    want = np.zeros(x.shape)
    for image, row, column in np.ndindex(2, 24, 20):
        across = np.ceil(np.arange(len(weights)) * np.cos(angles[image]) - 0.5).astype(int) + column
        down = np.ceil(np.arange(len(weights)) * np.sin(angles[image]) - 0.5).astype(int) + row
        trail = x[image].numpy()[:, down.clip(0, 23), across.clip(0, 19)]
        want[image, :, row, column] = trail @ weights / weights.sum()
    truncates_to(corrupt(x, PLACES[:2], "motion-blur", severity), want + 0.5)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_elastic_deformation_is_that_of_scipy(severity):
    x = pictures(4, height=33)
    far, smooth, corner = ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))[
        severity - 1
    ]
    lots = draws("elastic", severity, 4)
    corners, bends = 2 * lots.uniform(3, 2, part=0).numpy() - 1, 2 * lots.uniform(2, 33, 20, part=1).numpy() - 1
    points = np.array([[16, 22], [16, 10], [4, 10]])  # (x, y): the middle (10, 16) and a third of 20 away
    rows, columns = np.mgrid[:33, :20].astype(float)
    for image in range(4):
        to = points + corners[image] * 20 * corner
        whole = np.linalg.solve(np.column_stack([to, np.ones(3)]), points)  # from where it is to where it comes from
        came = np.stack([columns, rows, np.ones_like(rows)], -1) @ whole
        bent = [
            ndimage.gaussian_filter(each, 20 * smooth, mode="reflect", truncate=3.0) * 20 * far for each in bends[image]
        ]
        for channel in range(3):
            moved = ndimage.map_coordinates(
                x[image, channel].double(), (came[..., 1], came[..., 0]), order=1, mode="mirror"
            )
            if far:
                moved = ndimage.map_coordinates(moved, (rows + bent[0], columns + bent[1]), order=1, mode="reflect")
            truncates_to(corrupt(x[image : image + 1], torch.tensor([image]), "elastic", severity)[0, channel], moved)
    still = affine_places(torch.zeros(1, 3, 2, dtype=torch.float64), 33, 20)
    np.testing.assert_allclose(np.stack(still)[:, 0], np.stack([rows, columns]), atol=1e-12)


@pytest.mark.parametrize("kind", OCCLUSIONS)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 20), (1, 8, 8)])
def test_occlusions_hide_the_share_they_say_behind_grey(kind, shape):
    x = torch.full((40, *shape), 255, dtype=torch.uint8)
    for severity in SEVERITIES:
        found = corrupt(x, PLACES[:40], kind, severity)
        hidden = found == GREY
        assert torch.equal(hidden.any(1), hidden.all(1))
        assert (hidden | (found == 255)).all()
        share, pixels = severity / 10, shape[1] * shape[2]
        off = 0.5 if kind != "cutout" else max(shape[1:]) / 2
        assert ((hidden[:, 0].sum((1, 2)) - share * pixels).abs() <= off).all()
    everywhere = corrupt(x, PLACES[:40], kind, 3) == GREY
    assert kind == "cutout" or everywhere[:, 0].any(0).all()  # which seldom hides a corner
    assert not everywhere[:, 0].all(0).any()


def test_hidden_by_lot_is_uniform_up_to_the_share():
    found = hidden_by_lot(0.6, Draws.of(7, torch.arange(600)), 16, 16).float().mean((1, 2))
    assert stats.kstest(found.numpy(), stats.uniform(0, 0.6).cdf).pvalue > 0.01
    assert not hidden_by_lot(0.0, Draws.of(7, torch.arange(9)), 16, 16).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_looks_the_same_in_every_batch_order_and_size(kind):
    x = pictures(30)
    whole = corrupt(x, PLACES[:30], kind, 4)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    assert torch.equal(corrupt(x[order], PLACES[order], kind, 4), whole[order])
    assert torch.equal(
        torch.cat([corrupt(x[k : k + 7], PLACES[k : k + 7][: 30 - k], kind, 4) for k in range(0, 30, 7)]), whole
    )
    assert whole.dtype == torch.uint8 and whole.shape == x.shape
    assert corrupt(x[:0], PLACES[:0], kind, 4).shape == (0, 3, 24, 20)
    drawn = kind not in ("gaussian-blur", "contrast", "brightness", "pixelate", "jpeg")
    assert torch.equal(corrupt(x, PLACES[:30], kind, 4, seed=1), whole) != drawn
    assert torch.equal(corrupt(x, PLACES[:30] + 1, kind, 4), whole) != drawn


@pytest.mark.parametrize("kind", KINDS)
def test_more_severe_is_further_away(kind):
    x = pictures(40, 1 if kind in OCCLUSIONS else 3, 32, 32)
    away = [(corrupt(x, PLACES[:40], kind, severity).double() - x).pow(2).mean().item() for severity in SEVERITIES]
    if kind == "elastic":  # its published constants trade smooth shifts for rough ones
        assert min(away) > 1
    elif kind == "motion-blur":  # severities 3 and 4 differ in where its tail is cut off
        assert away[:3] + away[4:] == sorted(away[:3] + away[4:])
    else:
        assert away == sorted(away)
        assert len(set(away)) == 5


def test_pictures_of_one_pixel():
    x = torch.full((2, 3, 1, 1), 90, dtype=torch.uint8)
    assert all(corrupt(x, PLACES[:2], kind, 5).shape == x.shape for kind in KINDS)


def test_what_cannot_be_done_is_said():
    x = pictures(2)
    with pytest.raises(UserError, match=r"the kind of corruption must be one of gaussian-noise, .*; got fog"):
        corrupt(x, PLACES[:2], "fog", 1)
    with pytest.raises(UserError, match="the severity of a corruption must be 1, 2, 3, 4 or 5; got 0"):
        corrupt(x, PLACES[:2], "jpeg", 0)
    with pytest.raises(UserError, match="pictures to corrupt must be of 1 or 3 channels; got 2"):
        corrupt(x[:, :2], PLACES[:2], "jpeg", 1)
    assert set(PROTOCOLS) == set(KINDS)
