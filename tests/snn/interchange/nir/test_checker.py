"""What other tools make of NIR graphs, as the checker says it, proved by running them."""

import contextlib
import io
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from engram.snn.interchange.nir.checker import check
from engram.snn.interchange.nir.graph import NEURONS, Graph
from engram.snn.interchange.nir.interpreter import interpret
from engram.snn.interchange.nir.semantics import TOOLS, Semantics
from engram.snn.interchange.nir.targets import TAKEN
from engram.snn.interchange.nir.writing import to_nir, with_shapes

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    norse = pytest.importorskip("norse.torch")
    sinabs = pytest.importorskip("sinabs.nir")
    snntorch = pytest.importorskip("snntorch.import_nir")

TOOLS_HERE = ("norse", "snntorch", "sinabs")
MADE = Semantics()
"""The equations as they are, with the step of 0.1 ms that snnTorch has."""


def ran(target, graph, x, dt=MADE.dt):
    """What a tool sends for x [T, B, ...]; norse and snnTorch get one image at a time, without a batch."""
    made = to_nir(with_shapes(graph))
    x = torch.from_numpy(x).float()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        if target == "sinabs":
            net = sinabs.from_nir(made, num_timesteps=len(x))
            return (
                first(net(x.transpose(0, 1).flatten(0, 1))).unflatten(0, (x.shape[1], len(x))).transpose(0, 1).numpy()
            )
        every = []
        for image in x.unbind(1):
            net = (
                norse.from_nir(made, dt=dt, ignore_warnings=True)
                if target == "norse"
                else snntorch.import_from_nir(made)
            )
            state, sent = (None if target == "norse" else {}), []
            for frame in image:
                out, state = net(frame, state)
                sent.append(first(out))
            every.append(torch.stack(sent))
        return torch.stack(every, 1).numpy()


def first(out):
    return out[0] if isinstance(out, tuple) else out


def rough(draw, graph, target):
    """The same graph with weights and thresholds that meet nowhere exactly, one for a layer more often than not."""

    def node(each):
        if isinstance(each, Graph):
            return replace(each, nodes={name: node(one) for name, one in each.nodes.items()})
        arrays = {name: draw.normal(0.3, 1, value.shape).astype(np.float32) for name, value in each.arrays.items()}
        if each.kind in NEURONS:
            shape = each.arrays["r"].shape
            arrays = {name: constant(draw, name, shape) for name in NEURONS[each.kind]}
            if each.kind == "IF":
                arrays["r"] = np.ones(shape) if draw.random() < 0.8 else arrays["r"]
            elif target == "snntorch" and each.kind == "CubaLIF" and draw.random() < 0.7:
                arrays["r"] = arrays["tau_mem"] / MADE.dt
        return replace(each, arrays=arrays)

    return node(graph)


def constant(draw, name, shape):
    if name in ("v_leak", "v_reset") and draw.random() < 0.8:
        return np.zeros(shape)
    scale = 1e-3 if name.startswith("tau") else 1.0
    values = scale * draw.uniform(0.3, 1.5, shape if draw.random() < 0.2 else 1)
    return np.broadcast_to(values, shape).copy()


def chain_for(graphs, target, seed):
    draw = np.random.default_rng(seed)
    mostly = [kind for kind in TAKEN[target] if kind not in ("Input", "Output")]
    kinds = list(draw.choice(mostly, 4)) + (list(draw.choice(graphs.INNER, 1)) if seed % 5 == 0 else [])
    graph = graphs.chain(
        draw, kinds, circle=target != "snntorch" and seed % 4 == 0, inner=target != "snntorch" and seed % 7 == 0
    )
    return draw, rough(draw, graph, target)


@pytest.mark.parametrize("target", TOOLS_HERE)
def test_a_tool_sends_what_the_checker_predicts(graphs, target):
    """Random chains: refused where it says so, equal where it says so, and as predicted where it differs."""
    seen = {"same": 0, "differs": 0, "refused": 0, "unknown": 0}
    for seed in range(60):
        draw, graph = chain_for(graphs, target, seed)
        made = TOOLS["sinabs"] if target == "sinabs" and seed % 2 else MADE
        report, x = check(graph, target, made), graphs.spikes(draw, 8, 2)
        seen[report.verdict] += 1
        if report.verdict == "unknown":
            continue
        if report.verdict == "refused":
            with pytest.raises(Exception):  # noqa: B017 - every tool fails in its own way
                ran(target, graph, x)
            continue
        sent, there = ran(target, graph, x), report.understood
        assert there.graph is not None
        predicted = interpret(there.graph, x, there.semantics).outputs
        np.testing.assert_allclose(sent, predicted, rtol=2e-4, atol=2e-4, err_msg=f"{target} {seed}")
        if report.equal:
            meant = interpret(graph, x, made).outputs
            np.testing.assert_allclose(sent, meant, rtol=2e-4, atol=2e-4, err_msg=f"{target} {seed}")
    assert min(seen[each] for each in ("same", "differs", "refused")) >= 3, seen
