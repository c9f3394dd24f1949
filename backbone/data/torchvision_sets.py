"""The sets torchvision downloads. It is imported only to download, and to read CIFAR's checked pickles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engram.backbone.data.fingerprint import of_tensors
from engram.backbone.data.folders import open_classes
from engram.backbone.data.idx import read_labelled
from engram.backbone.data.locking import one_at_a_time
from engram.backbone.data.options import PictureOptions
from engram.backbone.data.parquet import open_parquet
from engram.backbone.data.places import (
    cifar_folder,
    idx_folder,
    missing,
    missing_cifar,
    missing_idx,
    missing_omniglot,
    omniglot_drawings,
)
from engram.backbone.data.sets import MemorySplit, Source
from engram.backbone.data.splits import stratified
from engram.backbone.errors import MissingData, UserError, must

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


def open_omniglot(
    path: str | None, options: PictureOptions | None, *, root: Path, download: bool, budget_bytes: int
) -> Source:
    """1,623 characters of 50 alphabets, 20 drawings of 105x105 each; the test set is a fixed fifth of every character.

    The published background and evaluation sets share no character, so neither can test a classifier trained on the
    other; they are one set here. Found are ``images_background*`` and ``images_evaluation`` in ``ROOT/omniglot-py``,
    ``ROOT/omniglot*`` or ROOT; a drawing that stands in several of them counts once.

    Source: Lake, Salakhutdinov, Tenenbaum 2015, "Human-level concept learning through probabilistic program induction".
    """
    if lost := missing_omniglot("omniglot", "Omniglot", root):
        _download("Omniglot", root, lost, download)
    by_class = omniglot_drawings(root)
    labels = torch.tensor([label for label, paths in enumerate(by_class.values()) for _ in paths])
    held = set(stratified(labels, 0.2, salt=1)[1].tolist())
    parts: dict[str, dict[str, list[Path]]] = {"train": {}, "test": {}}
    position = 0
    for name, paths in by_class.items():
        for drawing in paths:
            parts["test" if position in held else "train"].setdefault(name, []).append(drawing)
            position += 1
    return open_classes(parts, options or PictureOptions(), budget_bytes)


def _open_idx(name: str, kind: str, classes: tuple[str, ...], root: Path, download: bool) -> Source:
    folder = idx_folder(root, kind)
    if lost := missing_idx(name, kind, root):
        _download(kind, root, lost, download)
    train, test = (read_labelled(folder, prefix, len(classes)) for prefix in ("train", "t10k"))
    if train[0].shape[1:] != test[0].shape[1:]:
        raise must(
            f"the images in {folder}",
            "of one size",
            f"{list(train[0].shape)} and {list(test[0].shape)}",
            "Restore the files.",
        )
    digest = of_tensors(classes, {"train": train, "test": test})
    return Source(MemorySplit(*train), MemorySplit(*test), classes, digest)


def _open_cifar(name: str, kind: str, root: Path, download: bool, budget_bytes: int) -> Source:
    folder = cifar_folder(root, kind)
    if lost := missing_cifar(name, kind, root):
        _download(kind, root, lost, download)
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
        _download(kind, root, missing(name, folder), download)
    parts = {}
    for part in ("train", "test"):
        held = cls(root, train=part == "train", download=False)  # checks every md5 before it unpickles
        images = torch.from_numpy(held.data).permute(0, 3, 1, 2).contiguous()
        parts[part] = (images, torch.tensor(held.targets))
        classes = tuple(held.classes)
    return Source(MemorySplit(*parts["train"]), MemorySplit(*parts["test"]), classes, of_tensors(classes, parts))


def _damaged_cifar(cls: Any, folder: Path) -> Path | None:
    from torchvision.datasets.utils import check_integrity

    files = [*cls.train_list, *cls.test_list, (cls.meta["filename"], cls.meta["md5"])]
    return next((folder / file for file, md5 in files if not check_integrity(folder / file, md5)), None)


def _torchvision(kind: str) -> Any:
    from torchvision import datasets  # here, as it takes a second to import

    return getattr(datasets, kind)


def _download(kind: str, root: Path, lost: MissingData, allowed: bool) -> None:
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
