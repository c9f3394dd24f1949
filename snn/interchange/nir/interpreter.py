"""The reference: a NIR graph run step by step in plain numpy, under semantics that are said."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engram.snn.interchange.nir.cells import Cells, cells_of
from engram.snn.interchange.nir.graph import NEURONS, Graph, Node, Plan
from engram.snn.interchange.nir.semantics import Semantics
from engram.snn.interchange.nir.shapes import borders, dilations, flattened_axes, planned, strides


@dataclass
class Run:
    """What a run gave.

    Attributes:
        outputs: [T, B, ...] what left the graph.
        sent: by node, [T, B, ...] what left it at every step.
        potentials: by node with neurons, [T, B, ...] after the reset.
    """

    outputs: np.ndarray
    sent: dict[str, np.ndarray] = field(default_factory=dict)
    potentials: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class _State:
    v: np.ndarray
    i: np.ndarray
    rest: np.ndarray
    again: np.ndarray


def interpret(
    graph: Graph | Plan, x: np.ndarray, semantics: Semantics, keep: Collection[str] = (), dtype: Any = np.float64
) -> Run:
    """Run a graph.

    Args:
        graph: of any nodes that are read.
        x: [T, B, ...] what arrives at the input at every step.
        keep: nodes whose ``sent`` and ``potentials`` are wanted.
        dtype: what is computed in.
    """
    plan = graph if isinstance(graph, Plan) else planned(graph)
    steppers = {
        name: _Stepper(node, plan.shapes[name], x.shape[1], semantics, dtype) for name, node in plan.nodes.items()
    }
    batch = x.shape[1]
    before = {name: np.zeros((batch, *shape), dtype) for name, shape in plan.shapes.items()}
    outputs: list[np.ndarray] = []
    sent: dict[str, list[np.ndarray]] = {name: [] for name in keep}
    potentials: dict[str, list[np.ndarray]] = {name: [] for name in keep if plan.nodes[name].kind in NEURONS}
    for frame in x:
        values: dict[str, np.ndarray] = {}
        for name in plan.nodes:
            arriving = [values[each] for each in plan.now[name]] + [before[each] for each in plan.before[name]]
            if name == plan.source:
                arriving.append(frame.astype(dtype).reshape(batch, *plan.taken[name]))
            values[name] = steppers[name](sum(arriving[1:], arriving[0]))
        before = values
        outputs.append(values[plan.end])
        for name in keep:
            sent[name].append(values[name])
            if name in potentials:
                potentials[name].append(steppers[name].state.v.copy())
    return Run(
        np.stack(outputs),
        {name: np.stack(each) for name, each in sent.items()},
        {name: np.stack(each) for name, each in potentials.items()},
    )


class _Stepper:
    """One node with its state: called once a step with what arrives, [B, ...]."""

    def __init__(self, node: Node, shape: tuple[int, ...], batch: int, semantics: Semantics, dtype: Any) -> None:
        self.node, self.semantics, self.dtype = node, semantics, dtype
        self.past: list[np.ndarray] = []
        self.cells: Cells | None = None
        if node.kind in NEURONS:
            cells = cells_of(node, semantics)
            self.c = {name: value.astype(dtype) for name, value in cells.arrays().items()}
            self.cells = cells
            zeros = np.zeros((batch, *shape), dtype)
            v, i = (zeros + self.c.get(name, 0) for name in ("start", "synaptic_start"))
            self.state = _State(v, i, zeros, zeros)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        node = self.node
        if self.cells is not None:
            return self._neurons(x)
        if node.kind == "Delay":
            return self._delayed(x)
        return stateless(node, x)

    def _neurons(self, x: np.ndarray) -> np.ndarray:
        c, s, how = self.c, self.state, self.semantics
        i = x
        if "synaptic_decay" in c:
            i = c["synaptic_decay"] * s.i + c["synaptic_gain"] * x + c["synaptic_leak"]
            i, s.i = (s.i if how.current == "before" else i), i
        u = c["decay"] * s.v + c["gain"] * i + c["leak"]
        if "threshold" not in c:
            s.v = u
            return u
        return self._fire(u)

    def _fire(self, u: np.ndarray) -> np.ndarray:
        c, s, how = self.c, self.state, self.semantics
        theta = c["threshold"]
        if self._compared_again:
            u = u - theta * s.again
        spikes = fired(u, theta, how)
        if self.cells is not None and self.cells.refractory:
            held = s.rest > 0
            spikes, u = np.where(held, 0, spikes), np.where(held, s.v, u)
            s.rest = np.where(spikes > 0, self.cells.refractory, np.maximum(s.rest - 1, 0))
        if how.reset == "hard" and not self._compared_again:
            v = np.where(spikes > 0, c["v_reset"], u)
        else:
            v = u - theta * (spikes - s.again)
            s.again = (v > theta).astype(self.dtype) if self._compared_again else s.again
        s.v = np.maximum(v, c["floor"]) if "floor" in c else v
        return spikes.astype(self.dtype)

    @property
    def _compared_again(self) -> bool:
        return self.semantics.compared_again and self.node.kind == "IF"

    def _delayed(self, x: np.ndarray) -> np.ndarray:
        """What came so many whole steps ago, for every element; zeros before."""
        steps = np.broadcast_to(steps_of(self.node, self.semantics), x.shape[1:])
        self.past.append(x)
        self.past = self.past[-(int(steps.max()) + 1) :]
        found = np.zeros_like(x)
        for back in np.unique(steps):
            if back < len(self.past):
                found = np.where(steps == back, self.past[-1 - back], found)
        return found


def steps_of(node: Node, semantics: Semantics) -> np.ndarray:
    """The delay of a Delay in whole steps."""
    return np.asarray(np.rint(node.arrays["delay"] / semantics.dt), np.int64)


def fired(u: np.ndarray, theta: np.ndarray, how: Semantics) -> np.ndarray:
    """How many spikes neurons of this potential send."""
    if how.spikes == "several":
        whole = np.floor(u / theta) if how.comparison == ">=" else np.ceil(u / theta) - 1
        return np.maximum(whole, 0)
    return (u > theta if how.comparison == ">" else u >= theta).astype(u.dtype)


def stateless(node: Node, x: np.ndarray) -> np.ndarray:
    """x: [B, ...] through a node without a state."""
    a = {name: value.astype(x.dtype) for name, value in node.arrays.items()}
    match node.kind:
        case "Affine":
            return x @ a["weight"].T + a["bias"]
        case "Linear":
            return x @ a["weight"].T
        case "Scale":
            return x * a["scale"]
        case "Threshold":
            return (x > a["threshold"]).astype(x.dtype)
        case "Flatten":
            first, last = flattened_axes(node, x.ndim - 1)
            return x.reshape(*x.shape[: first + 1], -1, *x.shape[last + 2 :])
        case "Conv1d" | "Conv2d":
            return _convolved(node, x, a["weight"], a["bias"])
        case "SumPool2d" | "AvgPool2d":
            windows = _windows(node, x, node.pair("kernel_size"))
            summed = windows.sum((-2, -1))
            return summed if node.kind == "SumPool2d" else summed / np.prod(node.pair("kernel_size"))
        case _:
            return x


def _windows(node: Node, x: np.ndarray, kernel: tuple[int, ...]) -> np.ndarray:
    """x: [B, C, ...] -> [B, C, *places, *kernel], every window of a convolution or a pooling."""
    axes = len(kernel)
    padded = np.pad(x, [(0, 0), (0, 0), *borders(node, kernel)])
    spread = [d * (k - 1) + 1 for d, k in zip(dilations(node, axes), kernel, strict=True)]
    found = np.lib.stride_tricks.sliding_window_view(padded, spread, tuple(range(2, 2 + axes)))  # type: ignore[call-overload]
    every = [slice(None, None, step) for step in (*strides(node, axes), *dilations(node, axes))]
    return found[(slice(None), slice(None), *every)]


def _convolved(node: Node, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    groups = int(node.settings["groups"])  # type: ignore[arg-type]
    axes = weight.ndim - 2
    windows = _windows(node, x, weight.shape[2:])
    parts = [
        np.tensordot(part, held, ([*range(2 + axes, 2 + 2 * axes), 1], [*range(2, 2 + axes), 1]))
        for part, held in zip(np.split(windows, groups, 1), np.split(weight, groups, 0), strict=True)
    ]
    return np.moveaxis(np.concatenate(parts, -1) + bias, -1, 1)
