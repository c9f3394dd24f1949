"""What is saved of a network that was trained for episodes: a classifier of its training classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from engram.backbone.atomic import write_atomically
from engram.backbone.contract import Named, SupportHead
from engram.backbone.data.load import Data
from engram.backbone.data.sets import Split
from engram.backbone.data.splits import stratified
from engram.backbone.data.views import seen
from engram.backbone.nets.making import LINEAR, build_head
from engram.backbone.nets.prototypes import class_means, nearest_mean

VIEW = "fewshot.training-classes"
SUPPORT = "support.safetensors"
"""A file of the trial: the support head with what it has learned."""
TEST_SHARE, _SALT = 0.2, 3
"""Of the images of the training classes, to see what becomes of the saved classifier when it is converted."""
CAUTION = (
    "The network was trained on all images of these classes: accuracies say what is lost from one form of it to "
    "another. How well it does on new classes is the accuracy of episodes."
)


def numbered(split: Split) -> tuple[Split, list[int]]:
    """A split whose labels are 0, 1, ... for its own classes, and the label that each had."""
    labels = split.labels.unique()
    table = torch.full((int(labels.max()) + 1,), -1)
    table[labels] = torch.arange(len(labels))
    return seen(split, table), labels.tolist()


def view(data: Data, options: Mapping[str, Any]) -> Data:
    """The training classes alone, a fixed fifth of their images for a test set.

    data: of `engram.backbone.data.load.load_disjoint`.
    """
    train, labels = numbered(data.train)
    kept, held = stratified(train.labels, TEST_SHARE, _SALT)
    classes = tuple(data.classes[label] for label in labels)
    cautions = (*data.cautions, CAUTION)
    return replace(
        data, train=train.select(kept), validation=None, test=train.select(held), classes=classes, cautions=cautions
    )


def classifier_of(
    head: nn.Module, named: Named, fixed: bool, features: Tensor, labels: Tensor
) -> tuple[nn.Module, Named]:
    """A head for the training classes, and what it is made of: the support head's own, or the nearest class mean.

    Args:
        head: the support head.
        named: its name and options.
        fixed: whether it makes classifiers.
        features: [N, F] of the training images.
        labels: [N] int64 on the same device, numbered from 0.
    """
    ways = int(labels.max()) + 1
    if fixed and isinstance(head, SupportHead):
        return head.fitted(features, labels, ways), named
    made = build_head(LINEAR, features.shape[1], ways)
    weight, bias = nearest_mean(class_means(features, labels, ways))
    made.load_state_dict({"weight": weight, "bias": bias})
    return made.to(features.device), LINEAR


def save_support(folder: Path, head: nn.Module, named: Named) -> None:
    """Keep a support head with what it has learned, in the folder of its trial."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    write_atomically(folder / SUPPORT, save(tensors, {"head": json.dumps(asdict(named), sort_keys=True)}))


def support_head(named: Named, width: int, ways: int, trained: Path | None) -> nn.Module:
    """A support head in evaluation mode, with what the same one learned in a trial.

    Args:
        named: its name and options.
        width: F, of the features.
        ways: K, the classes of its training.
        trained: the folder of the trial, if any.
    """
    made = build_head(named, width, ways)
    saved = None if trained is None else _learned(trained / SUPPORT, named)
    if saved is not None:  # but for what is of so many classes
        own = made.state_dict()
        fits = {name: saved[name] for name, value in own.items() if name in saved and saved[name].shape == value.shape}
        made.load_state_dict({**own, **fits})
    return made.eval()


def kept_head(trained: Path) -> Named | None:
    """What the support head that a trial kept is made of; None where it kept none."""
    if not (trained / SUPPORT).exists():
        return None
    with safe_open(trained / SUPPORT, "pt") as file:
        return Named(**json.loads((file.metadata() or {})["head"]))


def _learned(path: Path, named: Named) -> dict[str, Tensor] | None:
    """What a support head has learned; None where none of the same name, version and options was kept."""
    if not path.exists():
        return None
    with safe_open(path, "pt") as file:
        if (file.metadata() or {}).get("head") != json.dumps(asdict(named), sort_keys=True):
            return None
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
