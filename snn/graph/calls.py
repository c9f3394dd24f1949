"""Functions and methods that are linear in the activations: which, with which arguments, and what they do to whom."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")
SCALINGS = (operator.mul, operator.truediv, torch.mul, torch.div, "mul", "div")
MEANS = (torch.mean, "mean")
CATS = (torch.cat, torch.concat)
RESHAPES = (torch.reshape, "view", "reshape")
FLATTENINGS = (torch.flatten, "flatten")
SQUEEZES = (torch.squeeze, torch.unsqueeze, "squeeze", "unsqueeze")
POOLS = (F.avg_pool2d, F.adaptive_avg_pool2d)

MIXES = "it mixes images with each other; leave dimension 0, the batch, as it is"
_ROUNDS = "rounding is not linear; leave rounding_mode out"
_APART = "it adds values with different numbers of dimensions; give both the same, [B, C, H, W] or [B, C]"

_NAMES: dict[Any, tuple[str, ...]] = {
    **dict.fromkeys((*SUMS, *SCALINGS), ("input", "other")),
    **dict.fromkeys(MEANS, ("input", "dim", "keepdim")),
    **dict.fromkeys(CATS, ("tensors", "dim")),
    **dict.fromkeys(FLATTENINGS, ("input", "start_dim", "end_dim")),
    **dict.fromkeys(SQUEEZES, ("input", "dim")),
    torch.reshape: ("input", "shape"),
    "contiguous": ("input", "memory_format"),
    F.avg_pool2d: (
        *("input", "kernel_size", "stride", "padding", "ceil_mode"),
        *("count_include_pad", "divisor_override"),
    ),
    F.adaptive_avg_pool2d: ("input", "output_size"),
}
_ALIASES = {"axis": "dim", "size": "shape"}


def arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of a call by name, whether they were given by name or by place."""
    places = node.args
    if node.target in ("view", "reshape"):  # sizes one by one, or all of them in a tuple
        sizes = places[1] if len(places) == 2 and isinstance(places[1], list | tuple) else places[1:]
        places, names = (places[0], sizes) if len(places) > 1 else places, ("input", "shape")
    else:
        names = _NAMES.get(node.target, ())
    extra = {f"number {place}": value for place, value in enumerate(places[len(names) :], len(names) + 1)}
    given = {_ALIASES.get(name, name): value for name, value in node.kwargs.items()}
    return {**dict(zip(names, places, strict=False)), **extra, **given}


def call_problem(node: fx.Node) -> str | None:
    """Why a call is not linear in the activations, or does not keep images apart: "" if it is, None if nobody knows.

    Where shapes were noted (`engram.backbone.nets.shapes.note_shapes`) dimensions are counted in them; else in [B, C,
    H, W].
    """
    target, given = node.target, arguments(node)
    if target not in _NAMES and target not in RESHAPES:
        return None
    if given.get("rounding_mode") is not None:
        return _ROUNDS
    known = (*_NAMES.get(target, ("input", "shape")), "rounding_mode")
    if strange := [name for name in given if name not in known]:
        return f"nobody knows whether its argument {', '.join(strange)} leaves it linear; leave that out"
    if target in SUMS:
        return _sum_problem(given)
    if target in SCALINGS:
        both = [given.get("input"), given.get("other")]
        numbers = [value for value in both if isinstance(value, int | float)]
        ordered = isinstance(both[0], fx.Node) or target in (operator.mul, torch.mul)
        return "" if len(numbers) == 1 and ordered else None
    if target in (torch.squeeze, "squeeze") and "dim" not in given:
        return None
    return "" if _keeps_images_apart(node, given) else MIXES


def _sum_problem(given: dict[str, Any]) -> str | None:
    if len(given) != 2:
        return None
    shapes = [value.meta["shape"] for value in given.values() if isinstance(value, fx.Node) and "shape" in value.meta]
    return _APART if len({len(shape) for shape in shapes}) > 1 else ""


def _keeps_images_apart(node: fx.Node, given: dict[str, Any]) -> bool:
    target = node.target
    if target in FLATTENINGS:
        return 0 not in dimensions(given.get("start_dim", 0), node)
    if target in RESHAPES:
        sizes = given.get("shape")
        first = sizes[0] if isinstance(sizes, list | tuple) and sizes else sizes
        return not (isinstance(first, int) and first > 0)  # a batch size written into the code
    if target in (torch.unsqueeze, "unsqueeze"):
        return given.get("dim") != 0
    if target in MEANS or target in CATS or target in SQUEEZES:
        found = dimensions(given.get("dim", 0 if target in CATS else None), node)
        return bool(found) and 0 not in found
    return True


def dimensions(named: object, node: fx.Node) -> list[int]:
    """Numbers of dimensions of what a node takes, none below zero; none at all where they are not plain numbers."""
    listed = list(named) if isinstance(named, list | tuple) else [named]
    shape = node.all_input_nodes[0].meta.get("shape")
    rank = 4 if shape is None else len(shape)
    whole = [each for each in listed if isinstance(each, int)]
    return [each % rank for each in whole] if len(whole) == len(listed) else []
