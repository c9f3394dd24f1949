"""What a graph gives for a still image before its first neurons: the same at every step, and computed once."""

from __future__ import annotations

from torch import fx, nn

from engram.snn.graph.sizes import is_size
from engram.snn.neurons.timed import TimedNeurons


def constant_nodes(
    graph: fx.Graph, modules: nn.Module, changing: tuple[type[nn.Module], ...] = (TimedNeurons,)
) -> set[fx.Node]:
    """Nodes that depend on the input and on no neurons.

    Args:
        graph: what is run.
        modules: the modules that it calls.
        changing: layers whose values change though their input does not.
    """
    found: set[fx.Node] = set()
    for node in graph.nodes:
        changes = node.op == "call_module" and isinstance(modules.get_submodule(str(node.target)), changing)
        inputs = [one for one in node.all_input_nodes if one.op != "get_attr"]
        follows = bool(inputs) and all(one in found for one in inputs) and not changes
        if node.op == "placeholder" or (follows and node.op != "output"):
            found.add(node)
    return found


def known_nodes(graph: fx.Graph, constant: set[fx.Node]) -> set[fx.Node]:
    """Constant nodes that a run of later steps need not compute again: not sizes that are wanted behind neurons."""
    known = set(constant)
    for node in reversed(list(graph.nodes)):
        if is_size(node) and any(user not in known for user in node.users):
            known.discard(node)
    return known


def needed(known: set[fx.Node]) -> set[fx.Node]:
    """Those known nodes that others need."""
    return {node for node in known if any(user not in known for user in node.users)}
