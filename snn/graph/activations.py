"""What is an activation, however it is written: module, function or method, in place or not. The one table of them."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from engram.snn.neurons.quantised import QCFS

RELU, QUANTISED = "relu", "qcfs"

MODULES: Mapping[type[nn.Module], str] = {
    nn.ReLU: RELU,
    QCFS: QUANTISED,
    nn.ReLU6: "relu6",  # before Hardtanh, which it is one of
    nn.Hardtanh: "hardtanh",
    nn.LeakyReLU: "leaky_relu",
    nn.PReLU: "prelu",
    nn.RReLU: "rrelu",
    nn.ELU: "elu",
    nn.CELU: "celu",
    nn.SELU: "selu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Mish: "mish",
    nn.Hardswish: "hardswish",
    nn.Softplus: "softplus",
    nn.Softsign: "softsign",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.Hardsigmoid: "hardsigmoid",
    nn.LogSigmoid: "logsigmoid",
    nn.Threshold: "threshold",
    nn.Hardshrink: "hardshrink",
    nn.Softshrink: "softshrink",
    nn.Tanhshrink: "tanhshrink",
}
_CLAMPS = ("clamp", "clip", "clamp_min", "clamp_max")


def _spellings(name: str) -> dict[Any, str]:
    """Every function and method that computes ``name``: of torch, torch.nn.functional and tensors, in place or not."""
    both = (name, f"{name}_")
    spaces = (F, torch, torch.special, torch.Tensor)
    functions = [getattr(space, each, None) for space in spaces for each in both]
    return dict.fromkeys([*both, *(each for each in functions if callable(each))], name)


CALLS: Mapping[Any, str] = {
    **{form: name for name in (*MODULES.values(), *_CLAMPS) if name != QUANTISED for form in _spellings(name)},
    torch.special.expit: "sigmoid",
}
_PRODUCTS = (operator.mul, operator.imul, operator.truediv, operator.itruediv, torch.mul, torch.div, torch.true_divide)
_PRODUCT_METHODS = ("mul", "mul_", "div", "div_", "multiply", "divide")
_SHAPES = ("view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "expand", "expand_as", "contiguous")


def activation(node: fx.Node, modules: Mapping[str, nn.Module]) -> str:
    """The name of the activation that a node computes; "" where it computes something else.

    Whatever computes max(x, 0) is "relu": ``x.clamp(min=0)`` and ``nn.Threshold(0, 0)``, too.
    """
    if node.op == "call_module":
        module = modules[str(node.target)]
        name = next((name for kind, name in MODULES.items() if isinstance(module, kind)), "")
        bounds = {"min": getattr(module, "min_val", None), "max": getattr(module, "max_val", None)}
        arguments = {"threshold": getattr(module, "threshold", None), "value": getattr(module, "value", None), **bounds}
    elif node.op in ("call_function", "call_method"):
        name = CALLS.get(node.target, "")
        arguments = _arguments(name, node)
    else:
        return ""
    return RELU if _rectifies(name, arguments) else name


def is_gate(node: fx.Node) -> bool:
    """Whether what a node gives scales another value, as the sigmoid of a squeeze-and-excitation block does."""
    return any(_scales(user) or (_reshapes(user) and is_gate(user)) for user in node.users)


def _arguments(name: str, node: fx.Node) -> dict[str, Any]:
    """The bounds of a clamp and the two numbers of a threshold, by name."""
    order = {
        **{"clamp": ("min", "max"), "clip": ("min", "max"), "clamp_min": ("min",), "clamp_max": ("max",)},
        **{"hardtanh": ("min_val", "max_val"), "threshold": ("threshold", "value")},
    }
    given = {**dict(zip(order.get(name, ()), node.args[1:], strict=False)), **node.kwargs}
    if name == "hardtanh":
        return {"min": given.get("min_val", -1.0), "max": given.get("max_val", 1.0)}
    return given


def _rectifies(name: str, arguments: Mapping[str, Any]) -> bool:
    if name in (*_CLAMPS, "hardtanh"):
        return _is(arguments.get("min"), 0) and arguments.get("max") in (None, math.inf)
    if name == "threshold":
        return _is(arguments.get("threshold"), 0) and _is(arguments.get("value"), 0)
    return name == RELU


def _is(value: object, number: float) -> bool:
    return isinstance(value, int | float) and value == number


def _scales(node: fx.Node) -> bool:
    known = node.target in (_PRODUCT_METHODS if node.op == "call_method" else _PRODUCTS)
    return known and len(node.all_input_nodes) > 1


def _reshapes(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return node.op in ("call_function", "call_method") and name in _SHAPES
