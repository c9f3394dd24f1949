from collections import Counter

import pytest
import torch

from engram.backbone.data.load import load, load_for_scoring

pytestmark = pytest.mark.data


def test_mnist(data_root):
    root = data_root("MNIST/raw/train-images-idx3-ubyte")
    data = load("mnist", {}, root=root)
    assert (len(data.train), len(data.validation), len(data.test)) == (54_000, 6_000, 10_000)
    assert data.mean.item() == pytest.approx(0.1307, abs=5e-4)
    assert data.std.item() == pytest.approx(0.3081, abs=5e-4)
    assert data.test.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_cifar10(data_root):
    root = data_root("cifar10/train-*.parquet")
    data = load("cifar10", {}, root=root)
    assert data.classes[:3] == ("airplane", "automobile", "bird")
    assert data.in_shape == (3, 32, 32)
    assert data.mean.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=2e-3)
    assert data.std.tolist() == pytest.approx([0.2470, 0.2435, 0.2616], abs=2e-3)
    alone, _, _ = load_for_scoring(f"parquet:{next((root / 'cifar10').glob('test-*.parquet'))}", {}, root=root)
    assert torch.equal(alone.labels, data.test.labels)
    [(one, *_)], [(two, *_)] = (split.batches(torch.arange(len(split)), 10**6, "cpu") for split in (alone, data.test))
    assert torch.equal(one, two)


def test_solar_cells_by_crystal(data_root):
    name = f"folder:{data_root('elpv-64') / 'elpv-64'}"
    pattern = "(?P<crystal>mono|poly)-"
    data = load(name, {"name_pattern": pattern, "group": "crystal", "environment": "crystal"}, root=data_root("*"))
    count = len(data.train) + len(data.validation) + len(data.test)
    groups = Counter((*data.train.columns["group"], *data.validation.columns["group"], *data.test.columns["group"]))
    assert count == 2624 and len(groups) == 8 and set(data.test.columns["environment"]) == {"mono", "poly"}
    assert groups["3-defective, mono"] == 313 and min(groups.values()) > 0
