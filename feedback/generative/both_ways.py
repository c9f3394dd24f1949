"""A part of a network's graph, run up and down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, fx, nn

from engram.feedback.generative.operations import Seen, is_sum, operation

Find = Callable[[str], nn.Module]
"""A module by its name."""


def cannot_go_down(graph: fx.Graph, find: Find) -> list[str]:
    """The operations of a graph that cannot be transposed, as their names and kinds."""
    found = []
    for node in graph.nodes:
        module = find(str(node.target)) if node.op == "call_module" else None
        known = node.op in ("placeholder", "output") or is_sum(node, module) or operation(node, module)
        if not known:
            kind = type(module).__name__ if module is not None else getattr(node.target, "__name__", node.target)
            found.append(f"{node.target if module is not None else node.name} ({kind})")
    return found


def up(
    graph: fx.Graph, find: Find, x: Tensor, came: Mapping[str, Tensor], share: float
) -> tuple[Tensor, dict[str, Seen]]:
    """Run a graph.

    Args:
        find: its modules.
        x: [B, ...].
        came: what came down before to nodes, by their names; {} at first.
        share: how much of that is mixed into what activations get.

    Returns: (its value [B, ...], what nodes have seen).
    """
    values, seen = dict[Any, Tensor](), dict[str, Seen]()
    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = x
        elif node.op == "output":
            return values[node.args[0]], seen
        else:
            module = find(str(node.target)) if node.op == "call_module" else None
            if is_sum(node, module):
                values[node] = values[node.args[0]] + values[node.args[1]]
                continue
            known = operation(node, module)
            assert known is not None  # refused before
            (source,) = node.all_input_nodes
            values[node], seen[node.name] = known.up(module, values[source], came.get(node.name), share)
    raise AssertionError("a graph has an output")


def down(graph: fx.Graph, find: Find, top: Tensor, seen: Mapping[str, Seen]) -> tuple[Tensor, dict[str, Tensor]]:
    """Run a graph backward with its own weights: what goes to several places on the way up is their sum.

    Args:
        find: its modules.
        top: [B, ...] what comes down to its value.
        seen: what nodes have seen on the way up.

    Returns: (what goes down to its input [B, ...], what came down to each node, by their names).
    """
    tops, came = dict[Any, Tensor](), dict[str, Tensor]()

    def add(node: Any, value: Tensor) -> None:
        tops[node] = tops[node] + value if node in tops else value

    for node in list(graph.nodes)[::-1]:
        if node.op == "output":
            add(node.args[0], top)
        elif node.op == "placeholder":
            return tops[node], came
        elif node in tops:
            module = find(str(node.target)) if node.op == "call_module" else None
            if is_sum(node, module):
                for source in node.args:
                    add(source, tops[node])
                continue
            known = operation(node, module)
            assert known is not None  # refused before
            came[node.name] = tops[node]
            add(node.all_input_nodes[0], known.down(module, tops[node], seen[node.name]))
    raise AssertionError("a graph has an input")
