"""What will differ when another tool runs a NIR graph, and by what factor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from engram.snn.interchange.nir.cells import Cells, cells_of
from engram.snn.interchange.nir.graph import NEURONS, SPIKING, Graph, Node
from engram.snn.interchange.nir.semantics import Semantics
from engram.snn.interchange.nir.shapes import planned
from engram.snn.interchange.nir.targets import Difference, Target, Understood, understood

CLOSE = 1e-6


@dataclass(frozen=True)
class Report:
    """What a tool makes of a graph.

    Attributes:
        target: the tool.
        differences: all of them, nodes in the order they run.
        understood: what the tool runs, by which its spikes are predicted.
    """

    target: Target
    differences: tuple[Difference, ...]
    understood: Understood

    @property
    def equal(self) -> bool:
        """Whether the tool's spikes are those the file means."""
        return all(each.verdict == "note" for each in self.differences)

    @property
    def verdict(self) -> str:
        """``same``, or the worst of what was found."""
        found = {each.verdict for each in self.differences}
        return next((each for each in ("refused", "unknown", "differs") if each in found), "same")


def check(graph: Graph, target: Target, made: Semantics) -> Report:
    """Compare what a tool makes of a graph with what the file means.

    Args:
        graph: a NIR graph.
        target: the tool that is to run it.
        made: the semantics that the file is meant to be run under: those of the tool that made it.
    """
    plan, theirs = planned(graph), understood(graph, target, made)
    found = list(theirs.differences)
    for name, node in plan.nodes.items():
        other = theirs.graph.nodes.get(name, node) if theirs.graph is not None else node
        if node.kind in NEURONS and isinstance(other, Node):
            found += _of_neurons(name, node, other, made, theirs.semantics, target)
    order = {name: place for place, name in enumerate(plan.nodes)}
    found.sort(key=lambda each: order.get(each.node, -1))
    return Report(target, tuple(dict.fromkeys(found)), theirs)


def _of_neurons(
    name: str, node: Node, other: Node, made: Semantics, how: Semantics, target: Target
) -> Iterator[Difference]:
    ours, theirs = cells_of(node, made), cells_of(other, how)
    yield from _of_step(name, ours, theirs)
    if node.kind in SPIKING:
        yield from _of_spikes(name, node, ours, theirs, made, how)
    if node.start is None and not _alike(_constant(ours, "start"), b := _constant(theirs, "start")):
        yield Difference(name, "the potential before the first step", None, "differs", f"It is {_said(b)}, not 0.")
    if target != "engram":
        for what, there in (
            ("the potential before the first step", node.start is not None),
            ("the refractory period", node.refractory > 0),
        ):
            if there:
                yield Difference(
                    name, what, 0.0, "differs", "It stands in engram's metadata, which no other tool reads."
                )


def _of_step(name: str, ours: Cells, theirs: Cells) -> Iterator[Difference]:
    a, b = _input(ours), _input(theirs)
    if not _alike(a, b):
        factor = _ratio(b, a)
        yield Difference(name, "gain", factor, "differs", f"What arrives counts {_said(b)}, not {_said(a)}.")
    for what, field in (("the share left after a step", "decay"), ("the share of the current left", "synaptic_decay")):
        a, b = _constant(ours, field), _constant(theirs, field)
        if not _alike(a, b):
            text = f"{_said(b)} is left of it after a step, not {_said(a)}."
            yield Difference(name, what, _ratio(b, a), "differs", text)
    a, b = (_constant(each, "leak") + each.gain * _constant(each, "synaptic_leak") for each in (ours, theirs))
    if not _alike(a, b):
        text = f"The leak adds {_said(b)} a step, not {_said(a)}."
        yield Difference(name, "the leak's potential", _ratio(b, a), "differs", text)


def _of_spikes(
    name: str, node: Node, ours: Cells, theirs: Cells, made: Semantics, how: Semantics
) -> Iterator[Difference]:
    first, second = _reset(node, made), _reset(node, how)
    if first != second:
        text = (
            "What is above the threshold is lost at every spike."
            if second == "hard"
            else ("What is above the threshold stays, so that neurons fire more.")
        )
        yield Difference(name, "the reset", None, "differs", f"It is {second}, not {first}. {text}")
    elif first == "hard" and not _alike(ours.v_reset, theirs.v_reset):
        text = f"The potential is set to {_said(theirs.v_reset)}, not to {_said(ours.v_reset)}."
        yield Difference(name, "the reset's potential", _ratio(theirs.v_reset, ours.v_reset), "differs", text)
    if _again(node, made) != _again(node, how):
        text = "A potential still above the threshold after a spike stays silent for a step where it had to fire."
        yield Difference(name, "the comparison after a spike", None, "differs", text)
    if made.comparison != how.comparison:
        text = f"A neuron fires at v {how.comparison} threshold, not {made.comparison}: at the threshold itself."
        yield Difference(name, "the comparison", None, "differs", text)
    if made.spikes != how.spikes:
        text = "As many spikes a step as thresholds fit in." if how.spikes == "several" else "At most one spike a step."
        yield Difference(name, "spikes in a step", None, "differs", text)
    if (ours.floor is None) != (theirs.floor is None):
        bound = "is" if ours.floor is None else "is not"
        text = f"The potential {bound} kept from falling below minus the threshold."
        yield Difference(name, "the lowest potential", None, "differs", text)
    if node.kind == "CubaLIF" and made.current != how.current:
        yield Difference(name, "the current", None, "differs", "The membrane sees the current of another step.")


def _reset(node: Node, how: Semantics) -> str:
    return "soft" if how.reset == "soft" or _again(node, how) else "hard"


def _again(node: Node, how: Semantics) -> bool:
    return how.compared_again and node.kind == "IF"


def _input(cells: Cells) -> np.ndarray:
    """What one unit of what arrives adds to the potential in the same step."""
    return cells.gain if cells.synaptic_gain is None else cells.gain * cells.synaptic_gain


def _constant(cells: Cells, field: str) -> np.ndarray:
    value = getattr(cells, field)
    return np.zeros(1) if value is None else value


def _alike(a: Any, b: Any) -> bool:
    return np.allclose(a, b, rtol=CLOSE, atol=1e-12)


def _ratio(theirs: Any, ours: Any) -> float | None:
    """One number where all neurons have the same, else that in the middle; None where ours is zero."""
    if not np.all(ours):
        return None
    return float(np.median(theirs / ours))


def _said(value: Any) -> str:
    low, high = float(np.min(value)), float(np.max(value))
    return f"{low:.4g}" if np.isclose(low, high) else f"{low:.4g} to {high:.4g}"
