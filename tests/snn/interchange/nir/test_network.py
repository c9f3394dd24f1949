"""A NIR graph as a network of ours, held against the interpreter step for step."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from engram.snn.interchange.nir.interpreter import interpret
from engram.snn.interchange.nir.network import NirNetwork
from engram.snn.interchange.nir.options import NirOptions


@pytest.mark.parametrize("seed", range(48))
def test_a_network_sends_what_the_interpreter_sends(graphs, seed):
    draw, graph = graphs.random_graph(seed)
    said = asdict(graphs.HOW[seed % len(graphs.HOW)])
    given = {name: said[name] for name in ("dt", "reset", "comparison", "spikes", "current")}
    net, x = NirNetwork(graph, graphs.SHAPE, NirOptions(semantics="nir", **given)).double(), graphs.spikes(draw, 7, 2)
    found = net.forward_steps(torch.from_numpy(x).transpose(0, 1)).detach()
    run = interpret(graph, x, net.how, keep=list(net.plan.nodes))
    np.testing.assert_array_equal(found.numpy(), run.outputs.reshape(7, 2, -1))
