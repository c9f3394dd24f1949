import hashlib
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from torchvision import datasets

from engram.backbone.data import torchvision_sets as sets
from engram.backbone.data.omniglot import open_omniglot
from engram.backbone.errors import MissingData, UserError
from engram.backbone.registry import Registry

IDX = {"MNIST": sets.open_mnist, "FashionMNIST": sets.open_fashion_mnist, "KMNIST": sets.open_kmnist}


def opened(opener, root, download=False, options=None):
    return opener(None, options, root=root, download=download, budget_bytes=2**30)


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A small set in CIFAR's own files, with torchvision's list of md5 sums to match."""

    def make(kind="CIFAR10", label_key=b"labels", classes=10):
        cls = getattr(datasets, kind)
        folder = tmp_path / cls.base_folder
        folder.mkdir()
        lists = {}
        for part in ("train_list", "test_list"):
            lists[part] = []
            for number, (name, _) in enumerate(getattr(cls, part)):
                rng = np.random.default_rng([number, len(part)])
                data = rng.integers(0, 256, (20, 3072), np.uint8)
                blob = pickle.dumps({"data": data, label_key.decode(): [index % classes for index in range(20)]})
                (folder / name).write_bytes(blob)
                lists[part].append([name, hashlib.md5(blob).hexdigest()])
            monkeypatch.setattr(cls, part, lists[part])
        blob = pickle.dumps({cls.meta["key"]: [f"class {index}" for index in range(classes)]})
        (folder / cls.meta["filename"]).write_bytes(blob)
        monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": hashlib.md5(blob).hexdigest()})
        return tmp_path

    return make


@pytest.mark.parametrize("kind", IDX)
def test_idx_sets_are_as_torchvision_reads_them(idx, kind):
    root = idx(kind)
    source = opened(IDX[kind], root)
    for split, train in ((source.train, True), (source.test, False)):
        theirs = getattr(datasets, kind)(root, train=train)
        assert torch.equal(split.images, theirs.data.unsqueeze(1))
        assert torch.equal(split.labels, theirs.targets)
    assert len(source.classes) == 10
    assert source.train.in_shape == (1, 28, 28)


def test_mnist_needs_no_torchvision(idx):
    code = (
        "import sys; from pathlib import Path; from engram.backbone.data.load import load;"
        f"load('mnist', {{}}, root=Path({str(idx())!r}));"
        "assert not {'torchvision', 'sklearn', 'mlflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda blob: b"", r"\(0 bytes beginning with nothing\)"),
        (lambda blob: blob[:5], r"\(5 bytes"),
        (lambda blob: blob[:-1], "bytes long, as its header says; got"),
        (lambda blob: blob + b"\0", "bytes long, as its header says; got"),
        (lambda blob: b"\x1f\x8b" + blob[2:], "one of unsigned bytes in"),
        (lambda blob: blob[:4] + b"\xff" * 4 + blob[8:], "bytes long, as its header says; got"),
        (lambda blob: blob[:4] + b"\xff" * 4 * blob[3] + blob[4 + 4 * blob[3] :], "bytes long, as its header"),
        (lambda blob: blob[:4] + bytes(4 * blob[3]), "filled; got none of 0"),
    ],
)
def test_damaged_idx_files(idx, name, damage, message):
    root = idx()
    file = root / "MNIST" / "raw" / name
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=message) as error:
        opened(sets.open_mnist, root)
    assert str(file) in str(error.value)
    assert "--download" in str(error.value)


def test_an_idx_file_that_nobody_can_hold(idx):
    root = idx()
    file = root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    with file.open("r+b") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(UserError, match=r"an IDX file must be at most 536,870,912 bytes; got 1,099,511,627,776 in"):
        opened(sets.open_mnist, root)


def test_idx_labels_must_fit(idx):
    root = idx()
    file = root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-1] + bytes([10]))
    with pytest.raises(UserError, match=r"from 0 to 9; got 10 in .*t10k-labels-idx1-ubyte item 19"):
        opened(sets.open_mnist, root)
    shutil.copy(root / "MNIST" / "raw" / "train-labels-idx1-ubyte", file)
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte must be 20 labels long.*got 40"):
        opened(sets.open_mnist, root)


def test_idx_parts_must_be_of_one_size(idx):
    root = idx()
    raw = root / "MNIST" / "raw"
    kept = (raw / "t10k-images-idx3-ubyte").read_bytes()
    idx(shape=(14, 14))
    (raw / "t10k-images-idx3-ubyte").write_bytes(kept)
    with pytest.raises(UserError, match="of one size"):
        opened(sets.open_mnist, root)


@pytest.mark.parametrize(
    ("opener", "looked_in"),
    [
        (sets.open_mnist, "MNIST/raw"),
        (sets.open_cifar10, r"cifar-10-batches-py and .*cifar10/\*.parquet"),
        (sets.open_cifar100, "cifar-100-python"),
        (open_omniglot, "omniglot-py"),
    ],
)
def test_a_root_without_the_set(tmp_path, opener, looked_in):
    root = tmp_path / "none"
    with pytest.raises(UserError, match=rf"nothing at {root}/{looked_in}.*--data-root .*--download"):
        opened(opener, root)
    assert not root.exists()


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100", "omniglot"])
def test_what_is_missing_is_known_before_it_is_opened(tmp_path, name):
    registry = Registry.discover()
    (found,) = registry.problems(name, {}, root=tmp_path, download=False, training=True)
    with pytest.raises(MissingData) as error:
        opened(registry.load("datasets", name), tmp_path)
    assert found == str(error.value)
    assert registry.problems(f"saccades:{name}", {}, root=tmp_path, download=False, training=True) == [found]
    assert registry.problems(name, {}, root=tmp_path, download=True, training=True) == []


def test_what_is_there_is_not_missing(idx):
    registry = Registry.discover()
    assert registry.problems("mnist", {}, root=idx(), download=False, training=True) == []
    assert registry.problems("digits", {}, root=idx(), download=False, training=True) == []


def test_a_download_that_fails_is_one_error(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(UserError, match=r"must be downloaded to .*Check the network"):
        opened(sets.open_mnist, tmp_path / "root", download=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"must be downloaded to .*FileExistsError"):
        opened(sets.open_mnist, tmp_path / "file", download=True)


def test_download(idx, tmp_path, monkeypatch):
    """Everything but the network: the set is fetched once, then found."""
    there, root = idx(), tmp_path / "new"
    calls = []
    fetch = lambda self: calls.append(1) or shutil.copytree(there, root, dirs_exist_ok=True)  # noqa: E731
    monkeypatch.setattr(datasets.MNIST, "download", fetch)
    first = opened(sets.open_mnist, root, download=True)
    assert opened(sets.open_mnist, root, download=True).fingerprint == first.fingerprint
    assert len(calls) == 1


@pytest.mark.parametrize(("kind", "key", "count"), [("CIFAR10", b"labels", 10), ("CIFAR100", b"fine_labels", 100)])
def test_cifar_is_as_torchvision_reads_it(cifar, kind, key, count):
    root = cifar(kind, key, count)
    source = opened(sets.open_cifar10 if count == 10 else sets.open_cifar100, root)
    for split, train in ((source.train, True), (source.test, False)):
        theirs = getattr(datasets, kind)(root, train=train)
        assert (split.images.permute(0, 2, 3, 1).numpy() == theirs.data).all()
        assert split.labels.tolist() == theirs.targets
    assert len(source.classes) == count


def test_a_strange_pickle_is_never_loaded(cifar):
    root = cifar()

    class Bad:
        def __reduce__(self):
            return (root / "owned").touch, ()

    for name in ("data_batch_3", "test_batch", "batches.meta"):
        file = root / "cifar-10-batches-py" / name
        good = file.read_bytes()
        file.write_bytes(pickle.dumps(Bad()))
        with pytest.raises(UserError, match=rf"md5; got another or none: .*{name}\. Delete it"):
            opened(sets.open_cifar10, root)
        file.write_bytes(good)
    assert not (root / "owned").exists()


def test_cifar_as_tables(table, tmp_path):
    table("cifar10/train-00000-of-00001.parquet")
    table("cifar10/test-00000-of-00001.parquet", labels=(0, 1), seed=1)
    source = opened(sets.open_cifar10, tmp_path / "tables")
    assert (len(source.train), len(source.test), source.classes) == (20, 2, ("cat", "dog"))
