"""A NIR graph as a network of ours, held against the interpreter step for step."""

import itertools
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import nn

from engram.backbone.contract import Backbone
from engram.backbone.errors import UserError
from engram.backbone.nets.making import build
from engram.backbone.registry import Registry
from engram.backbone.saved.model import load_model, save_model
from engram.snn.interchange.nir.graph import Graph, Node
from engram.snn.interchange.nir.interpreter import interpret
from engram.snn.interchange.nir.network import NirNetwork
from engram.snn.interchange.nir.options import NirOptions
from engram.snn.interchange.nir.writing import with_shapes, write


@pytest.mark.parametrize("seed", range(32))
def test_a_network_sends_what_the_interpreter_sends(graphs, seed):
    draw, graph = graphs.random_graph(seed)
    said = asdict(graphs.HOW[seed % len(graphs.HOW)])
    given = {name: said[name] for name in ("dt", "reset", "comparison", "spikes", "current")}
    net, x = NirNetwork(graph, graphs.SHAPE, NirOptions(semantics="nir", **given)).double(), graphs.spikes(draw, 7, 2)
    found = net.forward_steps(torch.from_numpy(x).transpose(0, 1)).detach()
    run = interpret(graph, x, net.how, keep=list(net.plan.nodes))
    np.testing.assert_array_equal(found.numpy(), run.outputs.reshape(7, 2, -1))


def classifier(graphs, seed=5, hidden=6, classes=4):
    """Input -> row -> LIF -> LIF of so many outputs; weights that are trained."""
    draw = np.random.default_rng(seed)
    nodes = {
        "in": Node(kind="Input", settings={"shape": (1, 8, 8)}),
        "flat": Node(kind="Flatten", settings={"start_dim": 0, "end_dim": -1}),
        "w1": Node(kind="Linear", arrays={"weight": draw.normal(0, 0.3, (hidden, 64)).astype(np.float32)}),
        "lif1": graphs.neuron(draw, "LIF", (hidden,)),
        "w2": Node(kind="Affine", arrays={"weight": draw.normal(0, 0.5, (classes, hidden)), "bias": np.ones(classes)}),
        "lif2": graphs.neuron(draw, "LIF", (classes,)),
        "out": Node(kind="Output", settings={"shape": (classes,)}),
    }
    names = list(nodes)
    return Graph(nodes=nodes, edges=tuple(itertools.pairwise(names)))


def net_of(graphs, **options):
    return NirNetwork(classifier(graphs), (1, 8, 8), NirOptions(semantics="nir", dt=graphs.DT, **options))


def test_it_is_a_backbone_whose_weights_learn(graphs):
    net, x = net_of(graphs, steps=5), torch.rand(3, 1, 8, 8)
    assert isinstance(net, Backbone) and net.feature_dim == 4 and net.steps == 5 and net.raw
    with torch.no_grad():
        assert torch.equal(net.forward_steps(x), net.forward_steps(x[:, None].expand(-1, 5, -1, -1, -1)))
        assert torch.equal(net(x), net.forward_steps(x).mean(0)) and net.stages(x) == []
    net(x).square().sum().backward()
    learned = {name for name, each in net.named_parameters() if each.grad is not None and each.grad.abs().sum() > 0}
    assert learned == {"nodes.node_w1.weight", "nodes.node_w2.weight", "nodes.node_w2.bias"}
    head = nn.Linear(4, 4)
    net.initialise(head)
    assert torch.equal(head(x[:, 0, 0, :4]), x[:, 0, 0, :4])


@pytest.mark.parametrize("circle", [False, True])
def test_a_tap_sees_every_layer_of_neurons_and_replaces_what_it_sends(graphs, circle):
    graph = classifier(graphs)
    if circle:
        back = Node(kind="Linear", arrays={"weight": np.eye(6)})
        graph = Graph(nodes={**graph.nodes, "back": back}, edges=(*graph.edges, ("lif1", "back"), ("back", "lif1")))
    net = NirNetwork(graph, (1, 8, 8), NirOptions(semantics="nir", dt=graphs.DT, steps=6))
    seen, x = {}, torch.rand(2, 1, 8, 8)

    def tap(site, value):
        seen.setdefault(site.name, []).append(value)
        return torch.zeros_like(value) if site.name == "nodes.node_lif1" else value

    with torch.no_grad():
        silenced = net.forward_steps(x, tap)
        assert {name: sum(map(len, each)) for name, each in seen.items()} == {
            "nodes.node_lif1": 6,
            "nodes.node_lif2": 6,
            "features": 6,
        }
        assert torch.equal(torch.cat(seen["features"]), silenced)
        net.nodes["node_w2"].weight.zero_()
        assert torch.equal(silenced, net.forward_steps(x))


def test_a_saved_one_is_made_again_without_the_file(graphs, tmp_path, made_of):
    graph, options = with_shapes(classifier(graphs)), {"semantics": "nir", "dt": graphs.DT, "steps": 5}
    write(graph, tmp_path / "net.nir")
    registry = Registry.discover()
    name = registry.chosen("backbones", f"nir:{tmp_path / 'net.nir'}")
    model = build(name, options, (1, 8, 8), 4, torch.zeros(1), torch.ones(1))
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(model(x), model.backbone(x))
    made = made_of(name, options, classes=tuple("abcd"), in_shape=(1, 8, 8))
    made = replace(made, backbone=replace(made.backbone, content=registry.content(name)))
    save_model(tmp_path / "model", model, made)
    (tmp_path / "net.nir").unlink()
    assert torch.equal(load_model(tmp_path / "model")[0](x), model.eval()(x))
    text = json.loads((tmp_path / "model" / "model.json").read_text())
    text["backbone"]["content"] = text["backbone"]["content"].replace("[6, 64]", "[60000, 64000]")
    (tmp_path / "model" / "model.json").write_text(json.dumps(text))
    with pytest.raises(UserError, match="more than 134217728 values"):
        load_model(tmp_path / "model")


def test_what_does_not_go_together_is_said(graphs):
    with pytest.raises(UserError, match=r"the data of a NIR network must be of images of 1x8x8.*; got images of 3x9x9"):
        NirNetwork(classifier(graphs), (3, 9, 9), NirOptions())
    with pytest.raises(UserError, match=r"the semantics must be those of a tool, for a file that says none"):
        NirNetwork(classifier(graphs), (1, 8, 8), NirOptions(semantics="engram"))
    assert not net_of(graphs, normalise=True).raw


def test_several_spikes_have_a_gradient(graphs):
    net, x = net_of(graphs, spikes="several", comparison=">=", reset="soft", steps=4), 4 * torch.rand(3, 1, 8, 8)
    out = net.forward_steps(x)
    assert out.max() > 1
    out.sum().backward()
    assert net.nodes["node_w1"].weight.grad.abs().sum() > 0
