import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage, stats

from engram.backbone.training import augment


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return torch.randn(40, 3, 7, 9, generator=generator(5))


def test_flip(images):
    which = torch.rand(40, generator=generator()) < 0.5
    got = augment.flip(images, which)
    for index, mirrored in enumerate(which.tolist()):
        want = images[index].flip(2) if mirrored else images[index]
        assert torch.equal(got[index], want)


def test_alternate_flip_shows_every_image_both_ways_in_any_two_epochs():
    places = torch.arange(1000)
    x = places.float()[:, None, None, None] + torch.tensor([0.0, 0.5])
    mirrored = [augment.flip_alternate(x, places, epoch)[:, 0, 0, 0] != x[:, 0, 0, 0] for epoch in range(4)]
    assert torch.equal(mirrored[0], ~mirrored[1])
    assert torch.equal(mirrored[0], mirrored[2]) and torch.equal(mirrored[1], mirrored[3])
    assert 450 < mirrored[0].sum() < 550
    for period in (2, 3, 10):  # nor does a pattern of classes in the files' order give one class one side
        for start in range(period):
            assert 0.4 < mirrored[0][start::period].float().mean() < 0.6


def test_alternate_flip_depends_on_the_image_not_on_the_batch():
    places = torch.randperm(60, generator=generator())
    x = torch.randn(60, 1, 2, 2)
    whole = augment.flip_alternate(x, places, 1)
    parts = [augment.flip_alternate(x[i : i + 7], places[i : i + 7], 1) for i in range(0, 60, 7)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("pixels", [1, 2, 6, 12])
def test_translate_against_a_loop_over_pixels(images, pixels):
    got = augment.translate(images, pixels, generator(3))
    shifts = torch.randint(0, 2 * pixels + 1, (2, 40), generator=generator(3)).T.tolist()
    assert got.shape == images.shape

    def inside(place, size):
        if pixels >= 7:  # more than the smaller side cannot be reflected
            return min(max(place, 0), size - 1)
        return -place if place < 0 else 2 * (size - 1) - place if place >= size else place

    for index, (down, right) in enumerate(shifts):
        for row in range(7):
            for column in range(9):
                source = inside(row + down - pixels, 7), inside(column + right - pixels, 9)
                assert torch.equal(got[index, :, row, column], images[index, :, source[0], source[1]])


def test_translate_with_a_black_border_against_a_loop_over_pixels(images):
    black = torch.tensor([-1.5, -0.5, -2.0])[: images.shape[1]]
    got = augment.translate(images, 3, generator(3), black)
    shifts = torch.randint(0, 7, (2, 40), generator=generator(3)).T.tolist()
    for index, (down, right) in enumerate(shifts):
        for row in range(7):
            for column in range(9):
                source = row + down - 3, column + right - 3
                within = 0 <= source[0] < 7 and 0 <= source[1] < 9
                want = images[index, :, source[0], source[1]] if within else black
                assert torch.equal(got[index, :, row, column], want)


def test_windows_gathered_on_a_device_are_those_cut_one_start_at_a_time(images):
    x = images.contiguous(memory_format=torch.channels_last)
    start = torch.stack((torch.randint(0, 4, (40,), generator=generator(1)), torch.arange(40) % 5))
    want = torch.stack(
        [x[i, :, down : down + 4, right : right + 5] for i, (down, right) in enumerate(start.T.tolist())]
    )
    got = augment.gathered(x, start, 4, 5)
    assert torch.equal(got, want) and got.is_contiguous(memory_format=torch.channels_last)


def bilinear(image, rows, columns, mode):
    """[C, H, W] at places in pixels; what lies beyond its border is 0, or its mirror image."""
    mode = {"zeros": "grid-constant", "reflection": "reflect"}[mode]
    return np.stack([ndimage.map_coordinates(each, (rows, columns), order=1, mode=mode) for each in image.numpy()])


@pytest.mark.parametrize("border", ["reflection", "zeros"])
def test_affine_against_matrices_in_pixels(images, border):
    black = torch.zeros(3) if border == "zeros" else None
    got = augment.warp(images, 0.4, 0.0, generator(3), black)
    angles, shears, wide, high = (0.4 * (2 * torch.rand(4, 40, generator=generator(3)) - 1)).double().numpy()
    down, right = np.mgrid[-3:4, -4:5]  # of 7 x 9 pixels, from the middle
    for n in range(40):
        turn = np.array([[np.cos(angles[n]), -np.sin(angles[n])], [np.sin(angles[n]), np.cos(angles[n])]])
        matrix = turn @ np.array([[1, shears[n]], [0, 1]]) @ np.diag(np.exp([wide[n], high[n]]))
        x, y = np.einsum("ij,jhw->ihw", matrix, np.stack((right, down)))
        want = bilinear(images[n], y + 3, x + 4, border)
        assert np.abs(got[n].numpy() - want).max() < 1e-4, n


def test_elastic_displacements_are_those_of_a_lattice():
    ramps = torch.stack(torch.meshgrid(torch.arange(13.0), torch.arange(10.0), indexing="ij"))[[1, 0]]
    got = augment.warp(ramps.expand(50, 2, 13, 10), 0.0, 0.7, generator(3)) - ramps
    lattice = 0.7 * torch.randn(50, 2, 4, 4, generator=generator(3))
    inner = got[:, :, [4, 8]][..., [3, 6]]  # lattice points lie 4 rows and 3 columns apart
    torch.testing.assert_close(inner, lattice[:, :, 1:3, 1:3], atol=1e-4, rtol=1e-4)


def test_what_is_warped_by_nothing_stays(images):
    torch.testing.assert_close(augment.warp(images, 1e-9, 1e-9, generator()), images)
    black = torch.tensor([0.5, -2.0, 0.0])
    torch.testing.assert_close(augment.warp(images, 1e-9, 0.0, generator(), black), images)
    dark = black[:, None, None].expand(40, 3, 7, 9)
    torch.testing.assert_close(augment.warp(dark, 0.5, 1.0, generator(), black), dark)


def test_translate_uses_every_shift_and_both_directions():
    x = torch.zeros(4000, 1, 9, 9)
    x[:, 0, 4, 4] = 1
    moved = augment.translate(x, 2, generator())[:, 0]
    place = moved.flatten(1).argmax(1)
    assert set(place.tolist()) == {9 * row + column for row in range(2, 7) for column in range(2, 7)}
    assert torch.bincount(place).max() < 1.4 * 4000 / 25


@pytest.mark.parametrize("side", [1, 2, 3, 4, 30])
def test_cutout_against_a_loop(images, side):
    got = augment.cutout(images, side, generator(1))
    draw = generator(1)
    centres = torch.randint(0, 7, (40,), generator=draw), torch.randint(0, 9, (40,), generator=draw)
    for index in range(40):
        want = images[index].clone()
        top, left = int(centres[0][index]) - side // 2, int(centres[1][index]) - side // 2
        want[:, max(0, top) : top + side, max(0, left) : left + side] = 0
        assert torch.equal(got[index], want)


def test_cutout_blanks_a_whole_square_in_the_middle_and_part_of_it_at_borders():
    blank = (augment.cutout(torch.ones(2000, 1, 12, 12), 4, generator()) == 0).sum((1, 2, 3))
    assert blank.max() == 16 and blank.min() == 4


def colour(count=20, channels=3):
    return torch.randint(0, 256, (count, channels, 16, 16), dtype=torch.uint8, generator=generator(2))


@pytest.mark.parametrize("channels", [1, 3])
def test_rand_augment_changes_images_not_their_kind_nor_its_input(channels):
    x = colour(channels=channels)
    before = x.clone()
    got = augment.rand_augment(x, 2, seed=4)
    assert got.shape == x.shape and got.dtype == torch.uint8
    assert torch.equal(x, before)
    assert (got != x).flatten(1).any(1).float().mean() > 0.5
    assert torch.equal(got, augment.rand_augment(x, 2, seed=4))
    assert not torch.equal(got, augment.rand_augment(x, 2, seed=5))


def test_noise_has_a_deviation_of_its_own_in_every_image_in_units_of_each_channel_s_way_from_black_to_white():
    black, white = torch.tensor([-100.0, -1000.0]), torch.tensor([100.0, 1000.0])
    found = augment.noisy(torch.zeros(400, 2, 20, 20), 0.05, generator(3), black, white)
    each = found.flatten(2) / (white - black)[:, None]
    deviation = each.std(2)
    assert (deviation[:, 0] / deviation[:, 1] - 1).abs().max() < 0.25  # 7 standard errors of 400 values each
    assert stats.kstest(each.std((1, 2)).numpy(), stats.uniform(0, 0.05).cdf).pvalue > 0.01
    assert each.mean().item() == pytest.approx(0, abs=1e-4)
    assert stats.kstest((each / deviation[..., None]).flatten()[::50].numpy(), stats.norm.cdf).pvalue > 0.01
    clipped = augment.noisy(torch.zeros(9, 2, 5, 5), 1.0, generator(3), black / 100, white / 100)
    assert (clipped.amin((0, 2, 3)).tolist(), clipped.amax((0, 2, 3)).tolist()) == ([-1, -10], [1, 10])


def test_occlusion_hides_whole_places_up_to_the_share(images):
    grey = torch.tensor([7.0, 8.0, 9.0])
    found = augment.occlude(images, 0.4, generator(3), grey)
    hidden = found == grey[:, None, None]
    assert torch.equal(hidden.any(1), hidden.all(1))
    assert torch.equal(found[~hidden], images[~hidden])
    shares = hidden[:, 0].float().mean((1, 2))
    assert 0.1 < shares.mean() < 0.3 and shares.max() <= 0.4 + 4.5 / 63  # to the nearest row of a rectangle


def test_rand_augment_is_torchvisions_on_blocks():
    from torchvision.transforms import v2

    x = colour(19)
    got = augment.rand_augment(x, 2, seed=7)
    torch.manual_seed(7)
    want = torch.cat([v2.RandAugment(num_ops=2)(x[start : start + 8]) for start in (0, 8, 16)])
    assert torch.equal(got, want)


def test_operations_are_reproducible_and_leave_the_global_random_state_alone(images):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for work in (
        lambda seed: augment.translate(images, 2, generator(seed)),
        lambda seed: augment.cutout(images, 3, generator(seed)),
        lambda seed: augment.warp(images, 0.2, 0.5, generator(seed)),
        lambda seed: augment.occlude(images, 0.9, generator(seed), torch.full((3,), 9.0)),
        lambda seed: augment.noisy(images, 0.5, generator(seed), torch.full((3,), -9.0), torch.full((3,), 9.0)),
        lambda seed: augment.rand_augment(colour(), 3, seed),
    ):
        assert torch.equal(work(1), work(1))
        assert not torch.equal(work(1), work(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_translation_keeps_channels_last(images):
    x = images.contiguous(memory_format=torch.channels_last)
    assert augment.translate(x, 1, generator()).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(augment.translate(x, 1, generator()), augment.translate(images, 1, generator()))
    assert F.l1_loss(augment.cutout(x, 2, generator()), augment.cutout(images, 2, generator())) == 0
