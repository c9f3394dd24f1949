"""The shapes of what flows through a NIR graph, and the plan of running it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from engram.backbone.errors import must
from engram.snn.interchange.nir.graph import NEURONS, Graph, Node, Plan, Shape, in_order, laid_flat

REMEDY = "Export the graph again."
_ONE_VALUE_EACH = (*NEURONS, "Scale", "Threshold", "Delay")
LARGEST = 2**27
"""Values that leave one node in one step: half a GB."""


class Misfit(Exception):
    """What arrives at a node is not what it takes; the text is the end of "it gets ..."."""


def planned(graph: Graph, name: str = "a NIR graph") -> Plan:
    """How to run a graph.

    Args:
        graph: with graphs inside or without.
        name: what errors call it.

    Raises:
        UserError: a node does not fit what it gets, nothing reaches it or the output, or no shape is known.
    """
    flat = laid_flat(graph)
    nodes = {key: node for key, node in flat.nodes.items() if isinstance(node, Node)}
    order, closing = in_order(flat)
    (source,), (end,) = flat.named("Input"), flat.named("Output")
    lost = [key for key in nodes if key not in order]
    if lost:
        raise must(f"every node of {name}", "reached from its input", f"{', '.join(lost[:5])} that is not", REMEDY)
    now = {key: tuple(a for a, b in flat.edges if b == key and (a, b) not in closing) for key in order}
    before = {key: tuple(a for a, b in flat.edges if b == key and (a, b) in closing) for key in order}
    taken, shapes = _shapes(nodes, order, now, before, name)
    nodes = {key: nodes[key] for key in order}
    return Plan(nodes=nodes, now=now, before=before, shapes=shapes, taken=taken, source=source, end=end)


def _shapes(
    nodes: Mapping[str, Node],
    order: list[str],
    now: Mapping[str, tuple[str, ...]],
    before: Mapping[str, tuple[str, ...]],
    name: str,
) -> tuple[dict[str, Shape], dict[str, Shape]]:
    taken: dict[str, Shape] = {}
    shapes: dict[str, Shape] = {}
    for key in order:
        node = nodes[key]
        found = [shapes[each] for each in now[key]] or [tuple(map(int, node.settings["shape"]))]  # type: ignore[arg-type]
        taken[key] = found[0]
        try:
            _require_alike(found)
            shapes[key] = leaving(node, found[0])
        except Misfit as error:
            raise must(f"node {key!r} of {name}", f"a {node.kind} that fits what it gets", error, REMEDY) from None
        if math.prod(shapes[key]) > LARGEST:
            got = f"{math.prod(shapes[key])}"
            raise must(f"node {key!r} of {name}", f"one that sends at most {LARGEST} values a step", got, REMEDY)
    for key in order:
        for each in before[key]:
            if shapes[each] != taken[key]:
                got = f"{_text(shapes[each])} from {each!r} and {_text(taken[key])}"
                raise must(f"what arrives at node {key!r} of {name}", "of one shape", got, REMEDY)
    return taken, shapes


def _require_alike(found: list[Shape]) -> None:
    if len(set(found)) > 1:
        raise Misfit(" and ".join(_text(each) for each in dict.fromkeys(found)))


def leaving(node: Node, arriving: Shape) -> Shape:
    """The shape that leaves a node.

    Raises:
        Misfit: it does not take what arrives.
    """
    if node.kind in ("Input", "Output", "Identity"):
        return _declared(node, arriving)
    if node.kind in _ONE_VALUE_EACH:
        return _for_each(node, arriving)
    if node.kind in ("Affine", "Linear"):
        return _matrix(node, arriving)
    if node.kind == "Flatten":
        return _flattened(node, arriving)
    return _windows(node, arriving)


def _declared(node: Node, arriving: Shape) -> Shape:
    """A declared shape may have other axes of length 1 than what arrives."""
    said: Shape = tuple(map(int, node.settings["shape"]))  # type: ignore[arg-type]
    if [size for size in said if size != 1] != [size for size in arriving if size != 1]:
        raise Misfit(f"{_text(arriving)}, where it says {_text(said)}")
    return arriving


def _for_each(node: Node, arriving: Shape) -> Shape:
    given = {**node.arrays, **({} if node.start is None else {"start": node.start})}
    for field, value in given.items():
        alike = value.ndim == len(arriving) and all(
            ours in (1, size) for ours, size in zip(value.shape, arriving, strict=True)
        )
        if value.size != 1 and not alike:
            raise Misfit(f"{_text(arriving)}, where {field} is {_text(value.shape)}")
    return arriving


def _matrix(node: Node, arriving: Shape) -> Shape:
    weight = node.arrays["weight"]
    if weight.ndim != 2 or arriving != weight.shape[1:]:
        raise Misfit(f"{_text(arriving)}, where weight is {_text(weight.shape)}")
    if node.kind == "Affine" and node.arrays["bias"].shape != weight.shape[:1]:
        raise Misfit(f"a bias of {_text(node.arrays['bias'].shape)}, where weight is {_text(weight.shape)}")
    return (weight.shape[0],)


def flattened_axes(node: Node, axes: int) -> tuple[int, int]:
    """The first and the last axis that a Flatten makes one, of so many without the batch."""
    first, last = (int(node.settings[name]) for name in ("start_dim", "end_dim"))  # type: ignore[arg-type]
    first, last = (axes + each if each < 0 else each for each in (first, last))
    if not 0 <= first <= last < axes:
        raise Misfit(f"{axes} axes, where it flattens {node.settings['start_dim']} to {node.settings['end_dim']}")
    return first, last


def _flattened(node: Node, arriving: Shape) -> Shape:
    first, last = flattened_axes(node, len(arriving))
    return (*arriving[:first], math.prod(arriving[first : last + 1]), *arriving[last + 1 :])


def _windows(node: Node, arriving: Shape) -> Shape:
    """Convolutions and pooling."""
    axes = 1 if node.kind == "Conv1d" else 2
    if len(arriving) != axes + 1:
        raise Misfit(f"{_text(arriving)}, not channels and {'length' if axes == 1 else 'height and width'}")
    pooling = node.kind in ("SumPool2d", "AvgPool2d")
    channels, kernel = arriving[0], node.pair("kernel_size") if pooling else node.arrays["weight"].shape[2:]
    if not pooling:
        weight, groups = node.arrays["weight"], int(node.settings["groups"])  # type: ignore[arg-type]
        if weight.ndim != axes + 2 or weight.shape[1] * groups != arriving[0] or weight.shape[0] % groups:
            raise Misfit(f"{_text(arriving)}, where weight is {_text(weight.shape)} in {groups} groups")
        if node.arrays["bias"].shape != weight.shape[:1]:
            raise Misfit(f"a bias of {_text(node.arrays['bias'].shape)}, where weight is {_text(weight.shape)}")
        said = node.settings.get("input_shape")
        if said is not None and tuple(np.atleast_1d(said).tolist()) != arriving[1:]:
            raise Misfit(f"{_text(arriving)}, where input_shape is {said}")
        channels = weight.shape[0]
    sizes = [
        (size + sum(border) - dilation * (length - 1) - 1) // stride + 1
        for size, border, dilation, length, stride in zip(
            arriving[1:], borders(node, kernel), _axis(node, "dilation", axes), kernel, strides(node, axes), strict=True
        )
    ]
    if min(sizes) < 1:
        raise Misfit(f"{_text(arriving)}, smaller than its window {_text(tuple(kernel))}")
    return (channels, *sizes)


def _axis(node: Node, name: str, axes: int) -> tuple[int, ...]:
    return node.pair(name)[:axes] if name in node.settings else (1,) * axes


def strides(node: Node, axes: int) -> tuple[int, ...]:
    """Of a layer with windows, along each axis."""
    return _axis(node, "stride", axes)


def dilations(node: Node, axes: int) -> tuple[int, ...]:
    """As `strides`."""
    return _axis(node, "dilation", axes)


def borders(node: Node, kernel: tuple[int, ...]) -> list[tuple[int, int]]:
    """The zeros before and behind every axis of a layer with windows."""
    padding = node.settings["padding"]
    if padding == "valid":
        return [(0, 0)] * len(kernel)
    if padding == "same":
        whole = [d * (k - 1) for d, k in zip(dilations(node, len(kernel)), kernel, strict=True)]
        return [(each // 2, each - each // 2) for each in whole]
    return [(each, each) for each in node.pair("padding")[: len(kernel)]]


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one value"
