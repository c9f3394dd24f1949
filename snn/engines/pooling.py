"""Average pooling behind spiking neurons becomes a part of them, so that the spikes themselves never reach memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

from torch import fx, nn

from engram.snn.engines.layer import SpikingLayer
from engram.snn.graph.pooling import window


def itself(module: nn.Module) -> SpikingLayer | None:
    return module if isinstance(module, SpikingLayer) else None


def fold_pooling(
    graph: fx.GraphModule,
    keep: Collection[str] = (),
    layer_of: Callable[[nn.Module], SpikingLayer | None] = itself,
) -> list[str]:
    """Fold average pooling into the layers it stands behind, in place; the network computes the same.

    `torch.nn.AvgPool2d` modules only, where nothing else reads the spikes, the layer is called once, and the windows
    are square and do not overlap.

    Args:
        graph: a traced network of spiking neurons, run over time by `engram.snn.graph.timed.TimeFolded`.
        keep: names of nodes that are wanted as they are, the neurons' or the pooling's.
        layer_of: the layer within a module that stands for neurons, None for every other module.

    Returns: the names of the layers that pool now.
    """
    calls = Counter(str(node.target) for node in graph.graph.nodes if node.op == "call_module")
    folded = []
    for node in list(graph.graph.nodes):
        size = _window(graph, node)
        source = node.all_input_nodes[0] if size > 0 else None
        if source is None or source.op != "call_module" or {node.name, source.name} & set(keep):
            continue
        layer = layer_of(graph.get_submodule(str(source.target)))
        alone = len(source.users) == 1 and calls[str(source.target)] == 1
        if layer is not None and layer.pool == 1 and alone:
            layer.pool = size
            node.replace_all_uses_with(source)
            graph.graph.erase_node(node)
            folded.append(str(source.target))
    graph.recompile()
    return folded


def _window(graph: fx.GraphModule, node: fx.Node) -> int:
    pool = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
    return window(pool) if isinstance(pool, nn.AvgPool2d) else 0
