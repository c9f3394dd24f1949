"""Operations of a forward pass, against counts by hand."""

import pytest
import torch
from torch import nn

from engram.backbone.measures.flops import flops_per_image, parameter_count
from engram.backbone.nets.making import build


def _conv(cin, cout, side, kernel=3):
    return 2 * cin * cout * kernel * kernel * side * side


def test_vgg_tiny_by_hand():
    model = build("vgg-tiny", {}, (3, 32, 32), 10, torch.zeros(3), torch.ones(3))
    by_hand = _conv(3, 16, 32) + _conv(16, 32, 16) + _conv(32, 64, 8) + 2 * 64 * 10
    assert flops_per_image(model, torch.rand(1, 3, 32, 32)) == by_hand
    assert flops_per_image(model, torch.rand(3, 3, 32, 32)) == by_hand  # of one, however many are shown
    assert flops_per_image(model, torch.rand(2, 5, 3, 32, 32)) == 5 * (by_hand - 1280) + 1280  # the head reads out once
    assert model.training
    assert parameter_count(model) == 27 * 16 + 144 * 32 + 288 * 64 + 2 * (16 + 32 + 64) + 64 * 10 + 10


class Repeated(nn.Module):
    """A layer that runs so many times, and a transposed one."""

    def __init__(self, times):
        super().__init__()
        self.layer, self.up, self.times = nn.Conv2d(2, 2, 3, padding=1), nn.ConvTranspose2d(2, 3, 2, stride=2), times

    def forward(self, x):
        for _ in range(self.times):
            x = torch.relu(self.layer(x)) * torch.sigmoid(x)
        return self.up(x)


@pytest.mark.parametrize("times", [0, 1, 4])
def test_what_runs_several_times_counts_several_times(times):
    up = 2 * 2 * 3 * 4 * 64  # every one of 8x8 pixels reaches 2x2 of each channel
    assert flops_per_image(Repeated(times), torch.rand(2, 2, 8, 8)) == times * _conv(2, 2, 8) + up


class Settling(nn.Module):
    """Runs the longer the brighter the first pixel is: its cost is that of the images it is shown."""

    def forward(self, x):
        return torch.stack([self._one(image) for image in x])

    def _one(self, image):
        for _ in range(int(image[0, 0, 0])):
            image = image @ image
        return image


def test_what_depends_on_the_image_is_a_mean():
    images = torch.zeros(2, 1, 4, 4)
    images[1, 0, 0, 0] = 3
    assert flops_per_image(Settling(), images) == 3 * 2 * 4**3 / 2


def test_a_shared_parameter_counts_once():
    layer = nn.Linear(3, 3)
    assert parameter_count(nn.Sequential(layer, layer)) == 12
