"""Shapes of a traced network's values."""

import copy

import pytest
import torch
from torch import nn

from engram.backbone.nets.folding import trace
from engram.backbone.nets.shapes import value_shapes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_are_those_of_a_run_and_nothing_changes(backbone, dtype):
    graph = trace(backbone("resnet-tiny", (3, 16, 16), width=0.5)).to(dtype).train()
    first = next(module for module in graph.modules() if isinstance(module, nn.BatchNorm2d))
    first.eval()
    before = copy.deepcopy(graph.state_dict())
    found = value_shapes(graph, (3, 16, 16))
    assert graph.training and not first.training
    assert all(torch.equal(value, before[name]) for name, value in graph.state_dict().items())
    nodes = [node for node in graph.graph.nodes if node.op != "output"]
    assert [node for node in found if node.op != "output"] == nodes
    seen = {}
    for name, module in graph.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out.shape}))
    graph.eval()(torch.rand(1, 3, 16, 16, dtype=dtype))
    shapes = {str(node.target): shape for node, shape in found.items() if node.op == "call_module"}
    assert shapes == {name: seen[name] for name in shapes} and len(shapes) > 10


def test_kinds_that_are_not_run_keep_the_shape(backbone):
    graph = trace(backbone("vgg-tiny", (1, 8, 8)))

    class Never(nn.ReLU):
        def forward(self, input):
            raise AssertionError

    whole = value_shapes(graph, (1, 8, 8))
    for name, module in list(graph.named_modules()):
        if isinstance(module, nn.ReLU):
            graph.set_submodule(name, Never())
    assert value_shapes(graph, (1, 8, 8), (Never,)) == whole
