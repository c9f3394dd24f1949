"""What can become spiking and what cannot, said before any work is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import fx, nn

from engram.backbone.contract import Backbone, Row, Traceable, Wrapping
from engram.backbone.errors import UserError
from engram.backbone.nets.folding import Untraceable, traced_with_stages
from engram.backbone.nets.heads import linear_form
from engram.backbone.nets.needs import need
from engram.backbone.nets.shapes import note_shapes
from engram.snn.graph.calls import MIXES
from engram.snn.graph.operations import (
    BATCHNORMS,
    DROPS_BATCH,
    OVERWRITES,
    Modules,
    function_name,
    is_activation,
    is_idle,
    max_pool,
    module_of,
    place,
    problem,
)
from engram.snn.graph.rewriting import analog_nodes, normal_form
from engram.snn.graph.sizes import is_size

SPIKING, LINEAR, REMOVED = "spiking neuron", "kept (linear)", "removed (does nothing in evaluation)"
ANALOG, AFFINE = "kept analog (hybrid)", "kept as an affine layer"
CURRENT = "kept analog at every step: a synaptic current, the mean of what was sent so far, one step late"
RUNNING_MAX = "running maximum over time: exact, but each input needs a running sum, which spikes-only hardware lacks"


@dataclass(frozen=True)
class Verdict:
    """What becomes of one layer; ``reason`` is empty unless it cannot be converted.

    ``analog_helps``: it could stay analog, with what precedes it, and the rest become spiking.
    """

    layer: str
    kind: str
    verdict: str
    reason: str = ""
    analog_helps: bool = False

    @property
    def row(self) -> Row:
        text = f"cannot convert: {self.reason}" if self.reason else self.verdict
        text += "; or --hybrid auto" if self.analog_helps else ""
        return {"layer": self.layer, "kind": self.kind, "verdict": text}


@dataclass(frozen=True)
class Preflight:
    """The verdict on every layer, in the order they run."""

    verdicts: tuple[Verdict, ...]

    @property
    def rows(self) -> list[Row]:
        return [verdict.row for verdict in self.verdicts]

    def require(self) -> None:
        """Raise UserError naming every layer that cannot be converted, with the remedy."""
        bad = [verdict for verdict in self.verdicts if verdict.reason]
        if not bad:
            return
        reasons = dict.fromkeys(verdict.reason for verdict in bad)
        named = ", ".join(f"{verdict.layer} ({verdict.kind})" for verdict in bad)
        hybrid = "; or keep it and what precedes it analog (--hybrid auto)"
        helps = hybrid if all(verdict.analog_helps for verdict in bad) else ""
        raise UserError(
            f"every layer must be linear or a ReLU to become spiking; got {named}. Remedy: {'; '.join(reasons)}{helps}."
        )


def inspect(backbone: nn.Module, head: nn.Module, hybrid: str | int = "none") -> Preflight:
    """Judge every layer of a network; it runs on a few blank images, for the shapes of what its layers take.

    Args:
        backbone: has ``features(x)`` and ``stages(x)``, or recurrence around such a network, which is then judged.
        head: what turns features into logits.
        hybrid: which front stays analog, see `rewriting.analog_front`.

    Raises:
        UserError: ``hybrid`` is a number and leaves nothing to spike.
    """
    links = list(_links(backbone)) if isinstance(backbone, Wrapping) else []
    backbone = backbone.settled() if isinstance(backbone, Wrapping) else backbone
    try:
        graph, _ = traced_with_stages(backbone)
        note_shapes(graph, backbone.in_shape)  # type: ignore[arg-type]
    except Untraceable as error:
        verdicts = [Verdict("features", type(backbone).__name__, "", str(error))]
    else:
        verdicts = judge(graph, hybrid)
    verdicts += links
    linear = linear_form(head) is not None
    reason = "" if linear else "the read-out has to be linear; make the head one nn.Linear layer (--head linear)"
    verdicts.append(Verdict("head", type(head).__name__, LINEAR, reason))
    return Preflight(tuple(verdicts))


def _links(whole: Wrapping) -> Iterator[Verdict]:
    """What becomes of what leads back."""
    try:
        whole.around(whole.settled())
    except UserError as error:
        reason = str(error)
    else:
        reason = ""
    for name, link in whole.links().items():
        yield Verdict(name, type(link).__name__, CURRENT, reason.rstrip("."))


def traced(backbone: nn.Module, adapter: str) -> tuple[fx.GraphModule, list[str]]:
    """The graph of a network for an adapter, composed layers whole, and the names of its stages.

    Raises:
        UserError: it cannot be traced, has steps of its own, or computes something else for a single image.
    """
    if isinstance(backbone, Backbone) and backbone.steps > 1:
        need(backbone, Traceable, adapter)
    try:
        graph, stages = traced_with_stages(backbone, composed=True)
    except Untraceable as error:
        raise UserError(
            f"a network for {adapter} must be Traceable, so that its features(x) become a graph; got"
            f" {type(backbone).__name__}: {error}."
        ) from error
    modules = dict(graph.named_modules())
    for node in _layers(graph):
        reason = problem(node, modules)
        if reason in (DROPS_BATCH, OVERWRITES):
            layer, kind = _named(node, modules)
            raise UserError(
                f"a network for {adapter} must keep images apart and overwrite nothing used elsewhere;"
                f" got {kind} at {layer}: {reason}."
            )
    return graph, stages


def judge(graph: fx.GraphModule, hybrid: str | int = "none") -> list[Verdict]:
    """The verdict on every operation of a traced network."""
    modules = dict(graph.named_modules())
    nodes = _layers(graph)
    neurons = [node for node in nodes if is_activation(node, modules)]
    front = _analog_front(graph, hybrid)
    helps = hybrid != "auto" and _analog_front(graph, "auto") is not None
    spiking = set(neurons) - (front or set())
    fed = _behind(graph, spiking)
    left = {str(node.target) for node in normal_form(graph).graph.nodes}
    verdicts = []
    for node in nodes:
        layer, kind = _named(node, modules)
        analog = hybrid != "none" and front is not None and node not in fed and node not in spiking
        reason = problem(node, modules)
        apart = reason != MIXES  # an analog front keeps images apart as well
        reason = "" if analog and apart else reason
        verdict = ANALOG if analog and _changes_with_time(node, modules) else _becomes(node, modules, left)
        verdicts.append(Verdict(layer, kind, verdict, reason, bool(reason) and apart and helps))
    if not neurons and not any(verdict.reason for verdict in verdicts):
        reason = "there is no ReLU in it, so nothing would spike; convert a network with ReLUs"
        verdicts.append(Verdict("features", "network", "", reason))
    return verdicts


def adapted(graph: fx.GraphModule, becomes: Callable[[fx.Node, Modules], str]) -> tuple[Row, ...]:
    """What an adapter makes of every layer, for its ``verdicts`` (`engram.backbone.contract.Backbone`).

    Args:
        graph: the traced network as it was.
        becomes: what a node turns into; "" for what stays, which is then said in the words of `_stays`.
    """
    modules = dict(graph.named_modules())
    return tuple(
        Verdict(*_named(node, modules), becomes(node, modules) or _stays(node, modules)).row for node in _layers(graph)
    )


def _stays(node: fx.Node, modules: Modules) -> str:
    if is_idle(node, modules):
        return "kept (does nothing in evaluation)"
    if isinstance(module_of(node, modules), BATCHNORMS):
        return "kept (normalisation)"
    return "kept analog" if max_pool(node, modules) is not None or problem(node, modules) else LINEAR


def _layers(graph: fx.GraphModule) -> list[fx.Node]:
    return [node for node in graph.graph.nodes if node.op.startswith("call_") and not is_size(node)]


def _becomes(node: fx.Node, modules: Modules, left: set[str]) -> str:
    """What a node that can be converted turns into; ``left`` names the modules of the network's normal form."""
    if is_activation(node, modules):
        return SPIKING
    if is_idle(node, modules):
        return REMOVED
    if max_pool(node, modules) is not None:
        return RUNNING_MAX
    if isinstance(module_of(node, modules), BATCHNORMS):
        return AFFINE if str(node.target) in left else f"folded into {_layer_before(node)}"
    return LINEAR


def _changes_with_time(node: fx.Node, modules: Modules) -> bool:
    """Whether it matters that a node stays analog: not to what is linear."""
    special = is_activation(node, modules) or max_pool(node, modules) is not None
    return special or bool(problem(node, modules))


def _analog_front(graph: fx.GraphModule, hybrid: str | int) -> set[fx.Node] | None:
    """The activations that stay analog; None when ``auto`` would leave nothing to spike."""
    try:
        return analog_nodes(graph, hybrid)
    except UserError:
        if hybrid == "auto":
            return None
        raise


def _behind(graph: fx.GraphModule, sources: set[fx.Node]) -> set[fx.Node]:
    """Every node that depends on one of some others."""
    behind: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if any(source in sources or source in behind for source in node.all_input_nodes):
            behind.add(node)
    return behind


def _named(node: fx.Node, modules: Modules) -> tuple[str, str]:
    module = module_of(node, modules)
    if module is None:
        return place(node), function_name(node)
    return str(node.target), type(module).__name__


def _layer_before(node: fx.Node) -> str:
    while (node := node.all_input_nodes[0]).op == "call_module" and len(node.all_input_nodes) == 1:
        owner = node.graph.owning_module
        if owner is None or isinstance(owner.get_submodule(str(node.target)), nn.Conv2d | nn.Linear):
            break
    return str(node.target)
