"""The networks in ``examples/``, as a user brings them."""

import io
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

from engram.backbone import brought
from engram.backbone.nets.classifier import as_it_is
from engram.backbone.nets.making import build
from engram.backbone.saved.weights import load_weights

LITE0 = Path(__file__).resolve().parents[2] / "examples" / "efficientnet_lite0.py"
DATA = Path(os.environ.get("ENGRAM_DATA", "/nowhere"))
WEIGHTS = DATA / "third-party" / "weights" / "efficientnet-lite0" / "efficientnet-lite0-57934424.pth"
PICTURES = DATA / "cifar10" / "test-00000-of-00001.parquet"
KINDS = {"dog": range(151, 269), "bird": [*range(7, 25), *range(80, 101), *range(127, 147)], "automobile": [
    407, 436, 468, 511, 609, 627, 656, 661, 675, 751, 817, 864], "frog": range(30, 33)}  # fmt: skip
"""Places among ImageNet's 1,000 classes."""


@pytest.fixture
def lite0(monkeypatch):
    monkeypatch.setenv(brought.VARIABLE, "")

    def make(size, classes=4):
        name = f"{LITE0}:EfficientNetLite0"
        return build(name, {}, (3, size, size), classes, torch.full((3,), 0.4), torch.full((3,), 0.2)).eval()

    return make


def test_it_is_brought_with_its_own_normalisation(lite0):
    model = lite0(32)
    net = model.backbone
    assert (net.feature_dim, net.raw) == (1280, True)
    mean, std = as_it_is(net, torch.full((3,), 0.4), torch.full((3,), 0.2), frames=False)
    assert mean.tolist() == [0.0] * 3 and std.tolist() == [1.0] * 3
    assert sum(p.numel() for p in net.parameters()) + 1281 * 1000 == 4_652_008
    x = torch.rand(2, 3, 32, 32)
    seen = []
    net.net._conv_stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(x)
    torch.testing.assert_close(seen[0], nn.functional.pad(2 * x - 1, (0, 1, 0, 1)))


@pytest.mark.parametrize("size", [33, 64, 100])
def test_borders_are_such_that_a_stride_halves_a_picture_and_rounds_up(lite0, size):
    net, found = lite0(size).backbone, []
    for layer in (net.net._conv_stem, *net.net._blocks):
        layer.register_forward_hook(lambda _, inputs, output: found.append(output.shape[-1]))
    with torch.no_grad():
        net(torch.rand(1, 3, size, size))
    expected, side = [], -(-size // 2)
    expected.append(side)
    for block, stride in enumerate((1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)):
        side = -(-side // stride)
        expected.append(side)
        assert net.net._blocks[block]._depthwise_conv.stride == (stride, stride)
    assert found == expected


@pytest.mark.data
def test_the_published_weights_know_what_is_on_pictures(lite0):
    if not WEIGHTS.is_file() or not PICTURES.is_file():
        pytest.skip("no such weights and pictures under ENGRAM_DATA")
    table = pq.read_table(PICTURES).slice(0, 120)
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    rows = [(row["img"]["bytes"], names[row["label"]]) for row in table.to_pylist()]
    rows = [(blob, name) for blob, name in rows if name in KINDS]
    pictures = [
        np.asarray(Image.open(io.BytesIO(blob)).resize((128, 128), Image.Resampling.BICUBIC)) for blob, _ in rows
    ]
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    model = lite0(128, classes=1000)
    load_weights(model, WEIGHTS)
    with torch.no_grad():
        features = model.backbone(images)
        answers = model.head(features).argmax(1).tolist()
    right = [answer in KINDS[name] for answer, (_, name) in zip(answers, rows, strict=True)]
    assert features.isfinite().all() and len(right) > 30
    assert np.mean(right) > 0.5, np.mean(right)  # chance is below 0.1
