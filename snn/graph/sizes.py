"""Numbers in a traced network that come from the sizes of values: ``b, c = x.shape[:2]``, ``c // 2``."""

from __future__ import annotations

from torch import fx

_METHODS = ("size", "dim", "ndimension", "numel")
_ATTRIBUTES = ("shape", "ndim", "device", "dtype")


def is_size(node: fx.Node) -> bool:
    """Whether a node asks for a size, or computes with nothing but sizes."""
    if node.op == "call_method":
        return node.target in _METHODS
    if node.op != "call_function":
        return False
    if node.target is getattr:
        return node.args[1] in _ATTRIBUTES
    arithmetic = getattr(node.target, "__module__", None) in ("_operator", "math", "builtins")
    return arithmetic and bool(node.all_input_nodes) and all(is_size(source) for source in node.all_input_nodes)
