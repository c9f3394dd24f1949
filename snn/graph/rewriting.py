"""One form for all convertible networks: an activation a module, max pools before it, nothing that needs no spikes.

`normal_form` changes how a network is written, never what it computes; `analog_front` says which activations of the
result stay what they are when a front part is not to spike.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable

import torch
from torch import fx, nn

from engram.backbone.errors import must
from engram.backbone.nets.folding import fold_batchnorm
from engram.snn.graph.activations import RELU, activation
from engram.snn.graph.operations import (
    BATCHNORMS,
    function_name,
    in_place,
    is_activation,
    is_idle,
    max_pool,
    module_of,
    place,
    problem,
)
from engram.snn.graph.pooling import RunningMaxPool, running

Rises = Callable[[str, nn.BatchNorm2d], bool]
"""Whether a BatchNorm, given with its name, keeps the order of values, so that a maximum may be taken behind it."""


def has_positive_factors(_name: str, norm: nn.BatchNorm2d) -> bool:
    return norm.weight is None or bool((norm.weight >= 0).all())


def normal_form(
    graph: fx.GraphModule, keep: Collection[str] = (), rises: Rises = has_positive_factors
) -> fx.GraphModule:
    """A copy of a traced network, in evaluation mode, in the form that becomes spiking node by node.

    BatchNorm is folded into the layer before it, through a max pool if its factors are positive; where that is not
    exact it becomes a depthwise 1x1 convolution (BatchNorm1d on [B, F]: a diagonal linear layer), exact at every time
    step. Functional ReLUs become modules and a ReLU called k times becomes k modules, none of them in place. Max pools
    become `RunningMaxPool` and, as the maximum commutes with whatever rises, move in front of the ReLU they follow:
    fewer neurons, and spikes are what the next layer sees. Identity and dropout go. What cannot be converted stays.

    The value behind any such group of layers keeps its node's name and every layer its module's; a value inside one (a
    ReLU's in front of its max pool) is there only if it is kept or used twice.

    Args:
        graph: of `engram.backbone.nets.folding.trace`.
        keep: names of nodes whose values are wanted elsewhere (stages); one that is taken out stands for its input.
        rises: decides which BatchNorms behind max pools fold into the layer before; the one thing in a normal form that
            follows from weights.
    """
    graph = copy.deepcopy(graph).eval()
    kept = _drop_idle(graph, set(keep))
    for node in list(graph.graph.nodes):
        _functions_to_modules(graph, node)
    stop_overwriting(graph)
    _norms_before_pools(graph, kept, rises)
    graph = fold_batchnorm(graph)
    _split_shared(graph)
    for node in list(graph.graph.nodes):
        _norm_to_layer(graph, node)
    _pool_before_activations(graph, kept)
    graph.delete_all_unused_submodules()
    graph.graph.lint()
    graph.recompile()
    return graph


def analog_front(graph: fx.GraphModule, hybrid: str | int) -> frozenset[str]:
    """Names of the activation modules that stay analog, of a network in `normal_form`.

    Nothing that stays analog is fed by spikes, so that for a still image the front runs once, whatever T is.

    Args:
        graph: of `normal_form`.
        hybrid: ``none``; N for the first N activations in running order; ``auto`` for every activation that something
            which cannot be converted depends on: none where all can be.

    Raises:
        UserError: nothing would be left to spike.
    """
    return frozenset(str(node.target) for node in analog_nodes(graph, hybrid))


def analog_nodes(graph: fx.GraphModule, hybrid: str | int) -> set[fx.Node]:
    """The activations that stay analog, as nodes, of any traced network; see `analog_front`."""
    modules = dict(graph.named_modules())
    activations = [node for node in graph.graph.nodes if is_activation(node, modules)]
    if hybrid == "none":
        return set()
    if hybrid == "auto":
        inside = ancestors(node for node in graph.graph.nodes if problem(node, modules))
        front = {node for node in activations if node in inside}
    else:
        front = set(activations[: _count(hybrid)])
    if len(front) == len(activations):
        raise must(
            "the analog front of a hybrid",
            f"shorter than the network, which has {len(activations)} activations that neurons can replace",
            f"--hybrid {hybrid}, which keeps {'all of them' if front else 'the whole network'}",
            "Give a smaller number, or use a network with more ReLUs behind what cannot be converted.",
        )
    return front


def ancestors(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """All nodes that some nodes depend on, and those nodes themselves."""
    found: set[fx.Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return found


def _count(hybrid: str | int) -> int:
    if isinstance(hybrid, str) and not hybrid.isdecimal():
        raise must("--hybrid", "none, auto or a number of activations", hybrid, "Use auto.")
    if int(hybrid) < 0:
        raise must("--hybrid", "at least 0", hybrid, "Use none or auto.")
    return int(hybrid)


def _drop_idle(graph: fx.GraphModule, keep: set[str]) -> set[str]:
    """Take out what does nothing; a kept name passes to the input of the node that had it."""
    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        if is_idle(node, modules):
            source = node.all_input_nodes[0]
            if node.name in keep:
                keep.add(source.name)
            node.replace_all_uses_with(source)
            graph.graph.erase_node(node)
    return keep


def _functions_to_modules(graph: fx.GraphModule, node: fx.Node) -> None:
    """A functional max pool, and whatever computes a ReLU, becomes a module of its own; the node stays."""
    modules = dict(graph.named_modules())
    called = module_of(node, modules)
    relu = activation(node, modules) == RELU
    if isinstance(called, nn.ReLU) or (called is not None and not relu):
        return
    module: nn.Module | None = nn.ReLU(in_place(node, modules)) if relu else max_pool(node, modules)
    if module is None:
        return
    if called is not None:
        graph.set_submodule(str(node.target), module)
        return
    inside = place(node)
    name = node.name if inside == node.name else f"{inside}.{function_name(node).rstrip('_')}"
    _call(graph, node, _add(graph, name, module))


def _split_shared(graph: fx.GraphModule) -> None:
    """Give every call of an activation a module of its own."""
    modules, seen = dict(graph.named_modules()), set()
    for node in graph.graph.nodes:
        if node.op != "call_module" or not is_activation(node, modules):
            continue
        target = str(node.target)
        if target in seen:
            target = _add(graph, target, copy.deepcopy(modules[target]))
            _call(graph, node, target)
        seen.add(target)


def overwritten(graph: fx.GraphModule) -> dict[fx.Node, set[fx.Node]]:
    """Activations that work in place, each with the nodes that use the value it overwrote after it."""
    modules, order = dict(graph.named_modules()), {node: i for i, node in enumerate(graph.graph.nodes)}
    found = [node for node in order if activation(node, modules) and in_place(node, modules)]
    return {node: {user for user in node.all_input_nodes[0].users if order[user] > order[node]} for node in found}


def stop_overwriting(graph: fx.GraphModule) -> None:
    """ReLUs in memory of their own; who used an overwritten value after an activation now says so."""
    for node, later in overwritten(graph).items():
        node.all_input_nodes[0].replace_all_uses_with(node, lambda user, later=later: user in later)
    for module in graph.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False


def _norms_before_pools(graph: fx.GraphModule, keep: set[str], rises: Rises) -> None:
    """Move a BatchNorm that rises before the max pool it follows, where a convolution takes it up."""
    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        norm = module_of(node, modules)
        pool = node.all_input_nodes[0] if isinstance(norm, nn.BatchNorm2d) else None
        if pool is None or max_pool(pool, modules) is None or len(pool.users) > 1 or pool.name in keep:
            continue
        layer = pool.all_input_nodes[0]
        alone = isinstance(module_of(layer, modules), nn.Conv2d) and len(layer.users) == 1
        if alone and isinstance(norm, nn.BatchNorm2d) and rises(str(node.target), norm):
            _exchange(pool, node)


@torch.no_grad()
def _norm_to_layer(graph: fx.GraphModule, node: fx.Node) -> None:
    """A BatchNorm that no layer takes up becomes a layer that scales and shifts every channel."""
    norm = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
    if not isinstance(norm, BATCHNORMS) or norm.running_mean is None or norm.running_var is None:
        return
    count, scale = norm.num_features, (norm.running_var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean * scale
    shift = shift if norm.bias is None else shift + norm.bias
    layer: nn.Conv2d | nn.Linear
    if isinstance(norm, nn.BatchNorm1d):
        layer = nn.Linear(count, count, device=scale.device, dtype=scale.dtype)
        layer.weight.copy_(scale.diag())
    else:
        layer = nn.Conv2d(count, count, 1, groups=count, device=scale.device, dtype=scale.dtype)
        layer.weight.copy_(scale.view(-1, 1, 1, 1))
    assert layer.bias is not None  # both are built with one
    layer.bias.copy_(shift)
    graph.set_submodule(str(node.target), layer.eval())


def _pool_before_activations(graph: fx.GraphModule, keep: set[str]) -> None:
    """Make max pools exact along time and move them before activations that feed nothing else.

    The two nodes exchange what they call, so that the value behind both keeps its name.
    """
    for node in list(graph.graph.nodes):
        modules = dict(graph.named_modules())
        pool = max_pool(node, modules)
        if pool is None:
            continue
        if not isinstance(pool, RunningMaxPool):
            graph.set_submodule(str(node.target), running(pool))
        (source,) = node.all_input_nodes
        while is_activation(source, modules) and len(source.users) == 1 and source.name not in keep:
            source.append(node)  # or an activation between the two in running order would change places with this one
            _exchange(source, node)
            node, source = source, source.all_input_nodes[0]


def _exchange(first: fx.Node, second: fx.Node) -> None:
    """Let two nodes call each other's modules."""
    first.target, second.target = second.target, first.target
    first.meta, second.meta = second.meta, first.meta


def _call(graph: fx.GraphModule, node: fx.Node, target: str) -> None:
    """Make a node call a module on its first input."""
    node.op, node.target, node.args, node.kwargs = "call_module", target, (node.all_input_nodes[0],), {}


def _add(graph: fx.GraphModule, name: str, module: nn.Module) -> str:
    """Add a module under a name no other has, and return that name."""
    taken, free, count = dict(graph.named_modules()), name, 1
    while free in taken or hasattr(graph, free):
        count += 1
        free = f"{name}_{count}"
    graph.add_submodule(free, module.eval())
    return free
