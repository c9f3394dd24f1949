"""Weights that the user brings in a file: safetensors, or what ``torch.save(net.state_dict())`` writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from engram.backbone.errors import must
from engram.backbone.nets.brought import Brought
from engram.backbone.nets.classifier import Classifier


@torch.no_grad()
def load_weights(model: Classifier, path: Path) -> None:
    """Give a fresh classifier the weights in a file; nothing in it is executed.

    Names are those of the network as its code has it: of a classifier of the user's own with its head, whose weights
    are left out where it has other classes; else of the backbone, or of a whole model that engram saved.

    Raises:
        UserError: it holds something else, or names and shapes of another network.
    """
    found, net = _read(path), model.backbone
    target: nn.Module = model if "normalise.mean" in found else net
    if isinstance(net, Brought) and target is net:
        head = {part: found.pop(f"{net.head}.{part}", None) for part in ("weight", "bias")}
        _fill(model.head, head)
        target = net.net
    ours = target.state_dict()
    lacking = sorted(ours.keys() ^ found.keys())
    other = [name for name, value in found.items() if name in ours and value.shape != ours[name].shape]
    if lacking or other:
        got = f"{', '.join([*lacking, *other][:5])} there or here alone, or of another shape"
        raise must(f"the weights in {path.name}", "those of the network", got, "Give its options, or another file.")
    target.load_state_dict(found)


def _fill(head: nn.Module, own: Mapping[str, Tensor | None]) -> None:
    ours = dict(head.named_parameters())
    if all((value := own.get(name)) is not None and value.shape == ours[name].shape for name in ours):
        for name, parameter in ours.items():
            parameter.copy_(own[name])  # type: ignore[arg-type]


def _read(path: Path) -> dict[str, Tensor]:
    try:
        found: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # a stranger's file may be anything
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise must("--weights", "safetensors, or a state_dict saved with torch.save", what, "Save it again.") from error
    found = found.get("state_dict", found) if isinstance(found, Mapping) else found
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise must("--weights", "a state_dict, tensors by name", type(found).__name__, "Save net.state_dict().")
    return {str(name): value for name, value in found.items()}
