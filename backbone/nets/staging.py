"""Any network as a row of stages: as it is written, or cut out of its graph."""

from __future__ import annotations

from typing import Any

from torch import nn

from engram.backbone.contract import Backbone, Staged
from engram.backbone.errors import must
from engram.backbone.nets.cutting import stage_graphs
from engram.backbone.nets.folding import Untraceable, traced_with_stages
from engram.backbone.nets.needs import need
from engram.backbone.nets.plain import copied
from engram.backbone.nets.traced import TracedBackbone


def in_stages(net: nn.Module, who: str) -> Any:
    """A copy of a network that is `Staged`: itself, or its graph where it is not written in stages but says them.

    Args:
        net: any network.
        who: needs it, such as the name of an adapter.

    Raises:
        UserError: it is not in stages, and has steps of its own, cannot be traced, says of no value that it is a stage,
            or more than one value leads from one stage to the next.
    """
    if isinstance(net, Staged):
        return copied(net)
    if isinstance(net, Backbone) and net.steps > 1:
        return need(net, Staged, who)
    try:
        graph, stages = traced_with_stages(net, composed=True)
    except Untraceable as error:
        got = f"{type(net).__name__}: {error}"
        rule, remedy = "Staged, or Traceable with stages(x) that lead to its features", "Use another --backbone."
        raise must(f"a network for {who}", rule, got, remedy) from error
    if not stages:
        what, got = f"a network for {who}", f"{type(net).__name__}, whose stages(x) returns none"
        raise must(what, "Staged: a row of stages and a tail", got, "Let stages(x) return the outputs of its stages.")
    stage_graphs(graph.graph, stages)
    return TracedBackbone(graph, net, stages).train(net.training)
