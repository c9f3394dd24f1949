"""What other tools make of a NIR graph when they import it, as far as the versions named here were read and run.

For every tool: the kinds of node it takes, what it makes of each, and the semantics it runs them under. `understood`
gives the graph that the tool in fact runs, so that the interpreter predicts its spikes.

Versions: norse 1.1.0, snntorch 1.0.0, sinabs 2.0.3, nirtorch 2.6, lava-nc 0.10.0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from engram.backbone.errors import UserError
from engram.snn.interchange.nir.graph import KINDS, NEURONS, Graph, Node, Plan, laid_flat
from engram.snn.interchange.nir.semantics import TOOLS, Semantics, said_by
from engram.snn.interchange.nir.shapes import planned

Target = Literal["norse", "snntorch", "sinabs", "lava", "engram"]
Verdict = Literal["differs", "refused", "unknown", "note"]
EVERYWHERE = "(all)"


@dataclass(frozen=True)
class Difference:
    """One thing that a tool makes of a node, and that is not what the file means.

    Attributes:
        node: its name; `EVERYWHERE` for what concerns the graph.
        what: in a few words.
        factor: theirs over the file's, where it is one number.
        verdict: ``refused``: the import or the first step fails; ``differs``: it runs, and the interpreter predicts its
            spikes; ``unknown``: nothing predicts what comes of it; ``note``: nothing differs where the user does as
            ``consequence`` says.
        consequence: a sentence.
    """

    node: str
    what: str
    factor: float | None
    verdict: Verdict
    consequence: str


@dataclass(frozen=True)
class Understood:
    """The graph that a tool runs, under its semantics, and what was lost on the way there.

    ``graph`` is None where the tool refuses it or nobody can say what it runs.
    """

    graph: Graph | None
    semantics: Semantics
    differences: tuple[Difference, ...]


_PLAIN = ("Input", "Output", "Affine", "Flatten", "Conv2d")
TAKEN: Mapping[Target, tuple[str, ...]] = {
    "norse": (*_PLAIN, "Linear", "SumPool2d", "IF", "LIF", "CubaLIF"),
    "snntorch": (*_PLAIN, "Linear", "Conv1d", "SumPool2d", "AvgPool2d", "IF", "LIF", "CubaLIF"),
    "sinabs": (*_PLAIN, "Conv1d", "SumPool2d", "IF", "LIF", "LI"),
    "lava": (*_PLAIN, "Linear", "SumPool2d", "IF", "LIF", "CubaLIF"),
    "engram": KINDS,
}
"""The kinds of node that a tool has something for."""
Found = Iterator["Node | Difference"]
"""What a tool makes of a node, at most one, and what it loses."""


def semantics_for(target: Target, made: Semantics, graph: Graph) -> Semantics:
    """How a tool runs a graph whose step it was told where it can be."""
    if target == "engram":
        return made
    told = target in ("norse", "lava")
    return replace(TOOLS[target], dt=made.dt) if told else TOOLS[target]


def understood(graph: Graph, target: Target, made: Semantics) -> Understood:
    """What a tool makes of a graph.

    Args:
        graph: laid flat or not.
        target: the tool.
        made: the semantics that the file is meant to be run under.
    """
    how = semantics_for(target, made, graph)
    if target == "engram":
        return Understood(graph, how, tuple(_unsaid(graph, made)))
    plan, flat = planned(graph), laid_flat(graph)
    nodes: dict[str, Node | Graph] = {}
    lost: list[Difference] = list(_of_graph(graph, plan, target, made))
    for name, node in plan.nodes.items():
        for found in _of_node(node, plan, name, target, how):
            if isinstance(found, Difference):
                lost.append(replace(found, node=name))
            else:
                nodes[name] = found
    if any(each.verdict in ("refused", "unknown") for each in lost):
        return Understood(None, how, tuple(lost))
    nodes = {name: _without_shape(node) if isinstance(node, Node) else node for name, node in nodes.items()}
    edges = flat.edges
    if target == "sinabs":  # all steps of a node run at once, so that nothing ever comes back
        edges = tuple((a, b) for a, b in edges if a not in plan.before[b])
    seen = Graph(nodes=nodes, edges=edges)
    try:
        planned(seen)
    except UserError as error:
        text = f"What follows gets another shape, and fails or computes something else: {error}"
        lost.append(Difference(EVERYWHERE, "shapes", None, "unknown", text))
        return Understood(None, how, tuple(lost))
    return Understood(seen, how, tuple(lost))


def _unsaid(graph: Graph, made: Semantics) -> Iterator[Difference]:
    """What has to be said to engram."""
    if (said_by(graph.metadata) or TOOLS["nir"]) != made:
        tool = next((name for name, how in TOOLS.items() if how == made), "TOOL")
        text = f"Say whose file it is, which it does not: --backbone.semantics {tool}."
        yield Difference(EVERYWHERE, "the semantics", None, "note", text)


def _without_shape(node: Node) -> Node:
    """No tool looks at the shapes that a layer says it takes."""
    kept = {name: value for name, value in node.settings.items() if name not in ("input_shape", "input_type")}
    return replace(node, settings=kept)


def _of_graph(graph: Graph, plan: Plan, target: Target, made: Semantics) -> Iterator[Difference]:
    nested = any(isinstance(node, Graph) for node in graph.nodes.values())
    branches = [name for name in plan.nodes if len(plan.now[name]) > 1]
    if target == "snntorch" and (nested or plan.circular):
        text = "The import of 1.0.0 fails in nirtorch at what it makes of circles and of graphs in a graph."
        yield Difference(EVERYWHERE, "a circle, or a graph in the graph", None, "refused", text)
    if target == "sinabs" and plan.circular:
        text = "All steps of a layer run at once: what should come back a step later never does."
        yield Difference(EVERYWHERE, "edges that close a circle", 0.0, "differs", text)
    if target in ("norse", "sinabs") and branches:
        text = "nirtorch's older loader runs a node with several inputs before all of them are there."
        yield Difference(branches[0], "several inputs", None, "unknown", text)
    timed = any("tau" in name or name == "delay" for node in plan.nodes.values() for name in node.arrays)
    if target == "norse" and timed and made.dt != TOOLS["norse"].dt:
        text = f"Say the step: norse.torch.from_nir(graph, dt={made.dt:g}), which takes 0.001 otherwise."
        yield Difference(EVERYWHERE, "the step", TOOLS["norse"].dt / made.dt, "note", text)
    if target == "lava":
        text = "Every layer sends a step later: read layer n from step n on. Spikes are the same."
        yield Difference(EVERYWHERE, "the time", None, "note", text)


def _of_node(node: Node, plan: Plan, name: str, target: Target, how: Semantics) -> Found:
    plain = replace(node, metadata={})
    if node.kind == "Identity" or target == "engram":
        yield plain
    elif node.kind not in TAKEN[target]:
        yield _unknown_kind(node, target)
    elif node.kind in NEURONS:
        yield from _NEURONS[target](plain, plan, name, how)
    else:
        yield from _of_layer(plain, plan, name, target)


def _unknown_kind(node: Node, target: Target) -> Difference:
    if target == "snntorch":
        return Difference("", f"a {node.kind}", None, "refused", "The import has nothing for it, and says so.")
    if target == "lava":
        return Difference("", f"a {node.kind}", None, "refused", "Lava has no process for it.")
    text = "The import leaves it out without a word: what it gets goes on as it is, or the next node fails."
    return Difference("", f"a {node.kind}", None, "unknown", text)


def _of_layer(node: Node, plan: Plan, name: str, target: Target) -> Found:
    groups = node.settings.get("groups", 1)
    if node.kind in ("Conv1d", "Conv2d") and node.arrays["weight"].shape[1] % int(groups):  # type: ignore[arg-type]
        text = "The import takes the weight's second axis for all input channels, which no groups of this size fit."
        if target != "lava":
            yield Difference("", "groups", None, "refused", text)
    if node.kind == "Flatten" and target in ("norse", "snntorch"):
        text = "Its axes count a batch from there on: one image at a time, without a batch, is right; a batch fails."
        yield Difference("", "axes of a Flatten", None, "note", text)
    if node.kind == "SumPool2d" and node.pair("padding") != (0, 0):
        yield Difference("", "the border of a SumPool2d", 0.0, "differs", "The import leaves the border out.")
        node = replace(node, settings={**node.settings, "padding": (0, 0)})
    if target == "lava" and "bias" in node.arrays and node.kind == "Conv2d" and node.arrays["bias"].any():
        yield Difference(
            "",
            "the bias of a convolution",
            0.0,
            "differs",
            "Lava's Conv has none: put it into the LIF behind it, or it is lost.",
        )
        node = replace(node, arrays={**node.arrays, "bias": 0 * node.arrays["bias"]})
    yield node


def _uniform(node: Node, *fields: str) -> str | None:
    """The first of some arrays whose values differ between neurons."""
    return next((each for each in fields if len(np.unique(node.arrays[each])) > 1), None)


def _refused_field(field: str) -> Difference:
    return Difference("", field, None, "refused", f"The import wants one {field} for all neurons.")


def _norse(node: Node, plan: Plan, name: str, how: Semantics) -> Found:
    yield node


def _snntorch(node: Node, plan: Plan, name: str, how: Semantics) -> Found:
    if field := _uniform(node, "v_threshold"):
        yield _refused_field(field)
        return
    if "v_leak" in node.arrays and not np.allclose(node.arrays["v_leak"], 0):
        yield Difference("", "v_leak", None, "refused", "The import takes none but 0.")
        return
    if node.kind == "IF":
        yield from _snntorch_if(node, plan, name)
        return
    if node.kind == "LIF":
        share = node.arrays["r"] * how.dt / node.arrays["tau"]
        if len(found := np.unique(share)) > 1:
            text = "The import scales all thresholds by the smallest r dt / tau of the layer."
            yield Difference("", "r dt / tau of single neurons", float(found[0] / np.median(share)), "differs", text)
            node = replace(node, arrays={**node.arrays, "r": found[0] * node.arrays["tau"] / how.dt})
    elif not np.allclose(node.arrays["r"], node.arrays["tau_mem"] / how.dt):
        yield Difference("", "r", None, "refused", "The import of a CubaLIF wants r = tau_mem / dt with dt = 0.0001.")
        return
    elif len(np.unique(node.arrays["w_in"] * how.dt / node.arrays["tau_syn"])) > 1:
        yield _refused_field("w_in dt / tau_syn")
        return
    yield node


def _snntorch_if(node: Node, plan: Plan, name: str) -> Found:
    if not np.all(node.arrays["r"] == 1):
        yield Difference("", "r", None, "refused", "The import of an IF wants r = 1.")
        return
    if any(name in plan.now[each] and plan.nodes[each].kind != "Output" for each in plan.nodes):
        text = "The import makes a layer that sends a pair, spikes and potential, which the next layer cannot take."
        yield Difference("", "an IF before another layer", None, "refused", text)
        return
    yield Difference("", "the output of an IF", None, "note", "What comes out is a pair: spikes, then the potential.")
    yield node


def _sinabs(node: Node, plan: Plan, name: str, how: Semantics) -> Found:
    several = node.arrays["r"].ndim > 1
    if node.kind == "LIF" and several:
        yield Difference("", "a LIF of several axes", None, "refused", "The import fails at v_leak of several axes.")
        return
    if node.kind in ("LIF", "LI") and node.arrays["v_leak"].any():
        yield Difference("", "v_leak", None, "refused", "The import takes none but 0.")
        return
    if node.kind == "LI" and not np.all(node.arrays["r"] == 1):
        yield Difference("", "r", None, "refused", "The import of a LI wants r = 1.")
        return
    yield node


def _lava(node: Node, plan: Plan, name: str, how: Semantics) -> Found:
    fields = [each for each in ("tau", "tau_mem", "tau_syn", "v_threshold") if each in node.arrays]
    if field := _uniform(node, *fields):
        yield Difference("", field, None, "refused", f"Lava's LIF has one {field} for all of its neurons.")
        return
    yield node


_NEURONS: Mapping[Target, Callable[[Node, Plan, str, Semantics], Found]] = {
    "norse": _norse,
    "snntorch": _snntorch,
    "sinabs": _sinabs,
    "lava": _lava,
}
