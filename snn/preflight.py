"""What can become spiking and what cannot, said before any work is done."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import fx, nn

from backbone.contract import Row
from backbone.errors import UserError
from backbone.nets.folding import FeatureTracer, bake, fold_batchnorm, trace

SPIKING, LINEAR, REMOVED = "spiking neuron", "kept (linear)", "removed (does nothing in evaluation)"

_LINEAR_MODULES = (
    *(nn.Conv2d, nn.Linear, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
    *(nn.Flatten, nn.Identity, nn.ZeroPad2d),
)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)
_BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)
_INPUT_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.LocalResponseNorm)
_SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")
_SIZES = ("size", getattr)

_MAX_POOL = "spikes have no maximum; use average or strided pooling (--backbone.pooling avg)"
_ATTENTION = "attention multiplies activations with each other; use a convolutional network (--backbone vgg-small)"
_FUNCTIONAL_RELU = "a functional ReLU can hold no neurons; give it an nn.ReLU module of its own in __init__"
_INPUT_NORM = "it rescales by statistics of the very input; use BatchNorm (--backbone.normalisation batch)"
_OTHER_ACTIVATION = "integrate-and-fire neurons compute a ReLU only (--backbone.activation relu)"
_UNFOLDED = "BatchNorm must directly follow a convolution or linear layer that feeds nothing else; move it there"
_UNKNOWN = "not known to be linear; build it from Conv2d, Linear, AvgPool2d, Flatten, ReLU and addition"

# Functions and methods by name, for the sake of a reason; whatever is not known is refused all the same.
_REASONS: Mapping[str, str] = {
    **dict.fromkeys(("relu", "relu_", "clamp_min", "clamp_min_"), _FUNCTIONAL_RELU),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "adaptive_max_pool2d", "amax", "max"), _MAX_POOL),
    **dict.fromkeys(("scaled_dot_product_attention", "softmax", "matmul", "bmm", "einsum"), _ATTENTION),
    **dict.fromkeys(("batch_norm",), "a functional BatchNorm cannot be folded; use an nn.BatchNorm2d module"),
    **dict.fromkeys(("layer_norm", "group_norm", "instance_norm"), _INPUT_NORM),
    **dict.fromkeys(("gelu", "silu", "leaky_relu", "sigmoid", "tanh", "elu", "relu6", "hardtanh"), _OTHER_ACTIVATION),
    **dict.fromkeys(("conv2d", "linear"), "its weights are passed by hand; use an nn.Conv2d or nn.Linear module"),
    **dict.fromkeys(("dropout",), "functional dropout; use an nn.Dropout module"),
}


@dataclass(frozen=True)
class Verdict:
    """What becomes of one layer; ``reason`` is empty unless it cannot be converted."""

    layer: str
    kind: str
    verdict: str
    reason: str = ""

    @property
    def row(self) -> Row:
        text = f"cannot convert: {self.reason}" if self.reason else self.verdict
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
        if bad:
            reasons = dict.fromkeys(verdict.reason for verdict in bad)
            named = ", ".join(f"{verdict.layer} ({verdict.kind})" for verdict in bad)
            raise UserError(
                f"every layer must be linear or a ReLU to become spiking; got {named}. Remedy: {'; '.join(reasons)}."
            )


def inspect(backbone: nn.Module, head: nn.Module) -> Preflight:
    """Judge every layer of a network without running it.

    Args:
        backbone: has ``features(x)`` and ``stages(x)``.
        head: what turns features into logits.
    """
    try:
        graph = trace(backbone)
        stage_outputs(backbone)
    except Exception as error:  # torch.fx raises many kinds, and so does a stranger's code fed with a proxy
        reason = (
            f"its code branches on values of tensors ({str(error).splitlines()[0]}); write it without such branches"
        )
        verdicts = [Verdict("features", type(backbone).__name__, "", reason)]
    else:
        verdicts = judge(graph)
    linear = isinstance(head, nn.Linear)
    reason = "" if linear else "the read-out averages logits over steps, which needs --head linear"
    verdicts.append(Verdict("head", type(head).__name__, LINEAR, reason))
    return Preflight(tuple(verdicts))


def judge(graph: fx.GraphModule) -> list[Verdict]:
    """The verdict on every operation of a traced network."""
    left = {node.name for node in fold_batchnorm(graph).graph.nodes}
    modules = dict(graph.named_modules())
    verdicts = []
    for node in graph.graph.nodes:
        if node.op == "call_module":
            module = modules[str(node.target)]
            verdicts.append(_judge_module(node, module, node.name not in left))
        elif node.op in ("call_function", "call_method") and node.target not in _SIZES:
            reason = "" if _is_linear(node) else _REASONS.get(_function_name(node), _UNKNOWN)
            verdicts.append(Verdict(_place(node), _function_name(node), LINEAR, reason))
    if not any(verdict.verdict == SPIKING or verdict.reason for verdict in verdicts):
        reason = "there is no nn.ReLU in it, so nothing would spike; convert a network with ReLUs"
        verdicts.append(Verdict("features", "network", "", reason))
    return verdicts


def _judge_module(node: fx.Node, module: nn.Module, folded: bool) -> Verdict:
    name, kind = str(node.target), type(module).__name__
    if isinstance(module, nn.ReLU):
        return Verdict(name, kind, SPIKING, _relu_problem(node, module))
    if isinstance(module, _BATCHNORMS):
        return Verdict(name, kind, f"folded into {_layer_before(node)}" if folded else "", "" if folded else _UNFOLDED)
    if isinstance(module, _DROPOUTS):
        return Verdict(name, kind, REMOVED)
    if isinstance(module, nn.Flatten) and module.start_dim < 1:
        return Verdict(name, kind, "", "it mixes images with each other; flatten from dimension 1")
    if isinstance(module, _LINEAR_MODULES):
        return Verdict(name, kind, LINEAR)
    if isinstance(module, _MAX_POOLS):
        return Verdict(name, kind, "", _MAX_POOL)
    if isinstance(module, _INPUT_NORMS):
        return Verdict(name, kind, "", _INPUT_NORM)
    if isinstance(module, nn.MultiheadAttention | nn.Softmax | nn.TransformerEncoderLayer):
        return Verdict(name, kind, "", _ATTENTION)
    activation = type(module).__module__ == "torch.nn.modules.activation"
    return Verdict(name, kind, "", _OTHER_ACTIVATION if activation else _UNKNOWN)


def _relu_problem(node: fx.Node, module: nn.ReLU) -> str:
    uses = sum(other.op == "call_module" and other.target == node.target for other in node.graph.nodes)
    if uses > 1:
        return f"one ReLU module is used {uses} times, but neurons have one state; give every use its own nn.ReLU"
    if module.inplace and len(node.all_input_nodes[0].users) > 1:
        return "it overwrites a value that is used elsewhere; use nn.ReLU(inplace=False)"
    return ""


def _is_linear(node: fx.Node) -> bool:
    """Whether a function or method is linear in the activations and keeps images apart."""
    target, args = node.target, list(node.args)
    first, second = [*args, None, None][:2]
    dims = node.kwargs.get("dim", second)
    if target in _SUMS:
        return len(args) == 2 and not node.kwargs
    if target in (operator.mul, operator.truediv, "mul", "div"):
        return isinstance(first, fx.Node) and isinstance(second, int | float)
    if target in (torch.flatten, "flatten"):
        start = node.kwargs.get("start_dim", second)
        return isinstance(start, int) and start >= 1
    if target in ("view", "reshape", torch.reshape):
        return not (isinstance(second, int) and second > 0)  # a batch size written into the code
    if target in (torch.mean, "mean"):
        listed = dims if isinstance(dims, list | tuple) else [dims]
        return all(isinstance(dim, int) and dim != 0 for dim in listed) and -4 not in listed
    if target in (torch.cat, torch.concat):
        return isinstance(dims, int) and dims >= 1
    if target is operator.getitem:
        return isinstance(first, fx.Node) and first.target in _SIZES
    return target in (F.avg_pool2d, F.adaptive_avg_pool2d, "contiguous")


def _function_name(node: fx.Node) -> str:
    target: str | Callable[..., object] = node.target
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))


def _place(node: fx.Node) -> str:
    """The module in whose code a function is called (``body.1.0.add``), or the node's own name."""
    stack = list(node.meta.get("nn_module_stack") or ())
    return stack[-1] if stack and stack[-1] else node.name


def _layer_before(node: fx.Node) -> str:
    while (node := node.all_input_nodes[0]).op == "call_module" and len(node.all_input_nodes) == 1:
        owner = node.graph.owning_module
        if owner is None or isinstance(owner.get_submodule(str(node.target)), nn.Conv2d | nn.Linear):
            break
    return str(node.target)


class _StageTracer(FeatureTracer):
    traced_func_name = "stages"


def stage_outputs(backbone: nn.Module) -> list[fx.Node]:
    """The nodes whose values ``backbone.stages`` returns; names are those of the graph of ``features``."""
    graph = _StageTracer().trace(bake(backbone).eval())
    (output,) = (node for node in graph.nodes if node.op == "output")
    stages = output.args[0]
    return [node for node in stages if isinstance(node, fx.Node)] if isinstance(stages, list | tuple) else []
