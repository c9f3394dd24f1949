"""The sets torchvision downloads. It is imported only to download, and to read CIFAR's checked pickles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engram.backbone.data.fingerprint import of_tensors
from engram.backbone.data.idx import read_labelled
from engram.backbone.data.locking import one_at_a_time
from engram.backbone.data.parquet import open_parquet
from engram.backbone.data.places import (
    cifar_folder,
    idx_folder,
    missing,
    missing_cifar,
    missing_idx,
)
from engram.backbone.data.sets import Source, in_memory
from engram.backbone.errors import MissingData, UserError, must

_PREFIXES = {"train": "train", "test": "t10k"}
_DIGITS = tuple("0123456789")
_GARMENTS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


def open_mnist(path: str | None, options: object, *, root: Path, download: bool, budget_bytes: int) -> Source:
    """60,000 and 10,000 grey digits of 28x28. Source: LeCun, Bottou, Bengio, Haffner 1998."""
    return _open_idx("mnist", "MNIST", _DIGITS, root, download)


def open_fashion_mnist(path: str | None, options: object, *, root: Path, download: bool, budget_bytes: int) -> Source:
    """60,000 and 10,000 grey garments of 28x28. Source: Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747."""
    return _open_idx("fashion-mnist", "FashionMNIST", _GARMENTS, root, download)


def open_kmnist(path: str | None, options: object, *, root: Path, download: bool, budget_bytes: int) -> Source:
    """60,000 and 10,000 grey cursive characters of 28x28. Source: Clanuwat et al. 2018, arXiv 1812.01718."""
    return _open_idx("kmnist", "KMNIST", _KUZUSHIJI, root, download)


def open_cifar10(path: str | None, options: object, *, root: Path, download: bool, budget_bytes: int) -> Source:
    """50,000 and 10,000 colour pictures of 32x32, from torchvision's files or ``ROOT/cifar10/*.parquet``.

    Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
    """
    return _open_cifar("cifar10", "CIFAR10", root, download, budget_bytes)


def open_cifar100(path: str | None, options: object, *, root: Path, download: bool, budget_bytes: int) -> Source:
    """50,000 and 10,000 colour pictures of 32x32 in 100 fine classes. Source: Krizhevsky 2009."""
    return _open_cifar("cifar100", "CIFAR100", root, download, budget_bytes)


def _open_idx(name: str, kind: str, classes: tuple[str, ...], root: Path, download: bool) -> Source:
    folder = idx_folder(root, kind)
    if lost := missing_idx(name, kind, root):
        download_from_torchvision(kind, root, lost, download)
    parts = {part: read_labelled(folder, prefix, len(classes)) for part, prefix in _PREFIXES.items()}
    (train, _), (test, _) = parts.values()
    if train.shape[1:] != test.shape[1:]:
        raise must(
            f"the images in {folder}",
            "of one size",
            f"{list(train.shape)} and {list(test.shape)}",
            "Restore the files.",
        )
    return Source(in_memory(parts), classes, of_tensors(classes, parts))


def _open_cifar(name: str, kind: str, root: Path, download: bool, budget_bytes: int) -> Source:
    folder = cifar_folder(root, kind)
    if lost := missing_cifar(name, kind, root):
        download_from_torchvision(kind, root, lost, download)
    elif not folder.is_dir():
        return open_parquet(str(root / name), None, root=root, download=False, budget_bytes=budget_bytes)
    cls = _torchvision(kind)
    if damaged := _damaged_cifar(cls, folder):
        if not download:
            raise must(
                "a file of " + name,
                "the published one, by its md5",
                f"another or none: {damaged}",
                "Delete it and run again with --download.",
            )
        download_from_torchvision(kind, root, missing(name, folder), download)
    parts = {}
    for part in ("train", "test"):
        held = cls(root, train=part == "train", download=False)  # checks every md5 before it unpickles
        images = torch.from_numpy(held.data).permute(0, 3, 1, 2).contiguous()
        parts[part] = (images, torch.tensor(held.targets))
        classes = tuple(held.classes)
    return Source(in_memory(parts), classes, of_tensors(classes, parts))


def _damaged_cifar(cls: Any, folder: Path) -> Path | None:
    from torchvision.datasets.utils import check_integrity

    files = [*cls.train_list, *cls.test_list, (cls.meta["filename"], cls.meta["md5"])]
    return next((folder / file for file, md5 in files if not check_integrity(folder / file, md5)), None)


def _torchvision(kind: str) -> Any:
    from torchvision import datasets  # here, as it takes a second to import

    return getattr(datasets, kind)


def download_from_torchvision(kind: str, root: Path, lost: MissingData, allowed: bool) -> None:
    """Let torchvision download a set, one process at a time; every file is checked against its md5."""
    if not allowed:
        raise lost
    try:
        with one_at_a_time(root):
            for part in ({"background": True}, {"background": False}) if kind == "Omniglot" else ({},):
                _torchvision(kind)(root, download=True, **part)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        reason = " ".join(str(error).split())  # torchvision tells about every mirror, a line each
        raise UserError(
            f"dataset {kind} must be downloaded to {root}; got {type(error).__name__}: {reason}. "
            "Check the network and the folder, or put the files there and leave --download out."
        ) from error
