"""What other tools make of NIR graphs, as the checker says it, proved by running them."""

import contextlib
import io
import itertools
import json
import os
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from engram.backbone.nets.classifier import Classifier
from engram.backbone.registry import Registry, resolve
from engram.snn.interchange.nir.checker import check
from engram.snn.interchange.nir.command_flags import NirFlags
from engram.snn.interchange.nir.export import export
from engram.snn.interchange.nir.graph import NEURONS, Graph, Node
from engram.snn.interchange.nir.interpreter import interpret
from engram.snn.interchange.nir.network import make
from engram.snn.interchange.nir.options import NirOptions
from engram.snn.interchange.nir.reading import read
from engram.snn.interchange.nir.semantics import TOOLS, Semantics, as_metadata, said_by
from engram.snn.interchange.nir.targets import TAKEN
from engram.snn.interchange.nir.writing import to_nir, with_shapes, write
from engram.snn.lowering.lower import lower
from engram.snn.lowering.running import run
from engram.snn.training.adapter import spiking
from engram.snn.training.options import SpikingOptions

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    norse = pytest.importorskip("norse.torch")
    sinabs = pytest.importorskip("sinabs.nir")
    snntorch = pytest.importorskip("snntorch.import_nir")

DATA = Path(os.environ.get("ENGRAM_DATA", "/nowhere"))
NETWORK, RECORDINGS = DATA / "third-party" / "nir" / "02_cnn" / "cnn_sinabs.nir", DATA / "nmnist-small" / "Train"
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


def single(graphs, node, shape=(3,), *more):
    """Input -> nodes -> output."""
    nodes = {
        "in": Node(kind="Input", settings={"shape": shape}),
        "n": node,
        **{f"n{i}": each for i, each in enumerate(more)},
    }
    nodes["out"] = Node(kind="Output", settings={"shape": shape})
    return Graph(nodes=nodes, edges=tuple(itertools.pairwise(nodes)))


def lif(**changes):
    arrays = {"tau": np.full(3, 2e-3), "r": np.full(3, 20.0), "v_leak": np.zeros(3), "v_threshold": np.ones(3)}
    return Node(kind="LIF", arrays={**arrays, "v_reset": np.zeros(3), **changes})


def row(report, what):
    return next(each for each in report.differences if each.what == what)


def test_factors_are_those_of_the_tools(graphs):
    """r = tau / dt, as snnTorch exports it: norse leaves r out, sinabs takes tau for steps and no gain."""
    graph, x = single(graphs, lif()), np.ones((200, 1, 3))
    norse_says, sinabs_says = check(graph, "norse", MADE), check(graph, "sinabs", MADE)
    assert row(norse_says, "gain").factor == pytest.approx(1 / 20)
    assert row(norse_says, "the step").factor == pytest.approx(10) and row(norse_says, "the step").verdict == "note"
    assert row(sinabs_says, "the share left after a step").factor == pytest.approx(0, abs=1e-6)
    assert check(graph, "snntorch", MADE).equal and not norse_says.equal
    meant = interpret(graph, x, MADE).outputs.sum()
    assert ran("snntorch", graph, x).sum() == meant == 300  # 1 is not above the threshold, 1.95 is
    assert (
        ran("norse", graph, x).sum() == 0 and row(norse_says, "gain").consequence == "What arrives counts 0.05, not 1."
    )


def test_a_node_that_is_not_known_is_left_out_without_a_word(graphs):
    scale = Node(kind="Scale", arrays={"scale": np.full(3, 100.0)})
    with_it, without = single(graphs, scale, (3,), lif(r=np.ones(3))), single(graphs, lif(r=np.ones(3)))
    x = np.ones((50, 1, 3)) * 1.5
    for target in ("norse", "sinabs"):
        assert check(with_it, target, MADE).verdict == "unknown"
        np.testing.assert_array_equal(ran(target, with_it, x), ran(target, without, x))
    assert check(with_it, "snntorch", MADE).verdict == "refused"


def test_branches_run_before_their_inputs_are_there(graphs):
    weights = [Node(kind="Affine", arrays={"weight": k * np.eye(3), "bias": np.zeros(3)}) for k in (30.0, -30.0)]
    nodes = {
        "in": Node(kind="Input", settings={"shape": (3,)}),
        "a": weights[0],
        "b": weights[1],
        "lif": lif(r=np.ones(3)),
    }
    nodes["out"] = Node(kind="Output", settings={"shape": (3,)})
    edges = (("in", "a"), ("in", "b"), ("a", "lif"), ("b", "lif"), ("lif", "out"))
    graph, x = Graph(nodes=nodes, edges=edges), np.ones((20, 1, 3))
    assert not interpret(graph, x, MADE).outputs.any()
    for target in ("norse", "sinabs"):
        assert check(graph, target, MADE).verdict == "unknown" and ran(target, graph, x).any()
    assert check(graph, "snntorch", MADE).equal and not ran("snntorch", graph, x).any()


def test_a_batch_shifts_a_flatten(graphs):
    flat = Node(kind="Flatten", settings={"start_dim": 0, "end_dim": -1})
    shape = (3, 2, 2)
    read = Node(kind="Affine", arrays={"weight": np.ones((3, 12)), "bias": np.zeros(3)})
    nodes = {"in": Node(kind="Input", settings={"shape": shape}), "flat": flat, "read": read, "lif": lif()}
    nodes["out"] = Node(kind="Output", settings={"shape": (3,)})
    graph = Graph(nodes=nodes, edges=tuple(itertools.pairwise(nodes)))
    report = check(graph, "snntorch", MADE)
    assert report.equal and "a batch fails" in row(report, "axes of a Flatten").consequence
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        net = snntorch.import_from_nir(to_nir(with_shapes(graph)))
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            net(torch.ones(2, *shape), {})
    assert ran("snntorch", graph, np.ones((4, 2, *shape))).shape == (4, 2, 3)


def test_our_files_say_what_other_tools_will_not_know(graphs):
    node = replace(lif(), metadata={"start": np.full(3, 0.5), "refractory": np.array(2)})
    graph = replace(single(graphs, node), metadata=as_metadata(replace(MADE, reset="soft")))
    made = said_by(graph.metadata)
    report = check(graph, "snntorch", made)
    assert {each.what for each in report.differences} == {
        "the reset",
        "the potential before the first step",
        "the refractory period",
    }
    assert check(graph, "engram", made).differences == ()
    told = check(graph, "engram", TOOLS["sinabs"]).differences
    assert [each.consequence for each in told] == [
        "Say whose file it is, which it does not: --backbone.semantics sinabs."
    ]


def test_a_network_of_ours_sends_the_same_spikes_in_snntorch():
    """Trained with hard reset, in convolutions and pools of averages: the whole file but for how logits are read."""
    torch.manual_seed(0)
    registry = Registry.discover()
    options = registry.options("backbones", "vgg-tiny")(width=0.25, normalisation="batch")
    net = spiking(
        registry.load("backbones", "vgg-tiny")((1, 8, 8), options),
        SpikingOptions(steps=6, threshold=0.03, reset="hard"),
    )
    model = Classifier(net, nn.Linear(net.feature_dim, 4), torch.zeros(1), torch.ones(1)).eval()
    exported = export(lower(model), allow_approximate=True)
    assert check(exported.graph, "snntorch", exported.semantics).equal
    x = 3 * np.random.default_rng(0).random((1, 3, 1, 8, 8)).repeat(6, 0)
    expected = run(lower(model), torch.from_numpy(x[0]).float())
    assert expected.std(1).max() > 1e-3
    np.testing.assert_allclose(ran("snntorch", exported.graph, x), expected.numpy(), rtol=1e-4, atol=1e-4)
    assert check(exported.graph, "sinabs", exported.semantics).verdict == "refused"
    assert row(check(exported.graph, "norse", exported.semantics), "gain").factor == pytest.approx(0.5)


def test_the_command_prints_what_differs(graphs, tmp_path, capsys):
    write(single(graphs, lif()), tmp_path / "net.nir")
    registry = Registry.discover()
    handler = resolve(registry.commands()["nir"].handler)

    def shown(**flags):
        assert handler(SimpleNamespace(words=[str(tmp_path / "net.nir")], flags=NirFlags(**flags))) == 0
        return capsys.readouterr().out

    assert "norse: sends other spikes\n  note     (all): the step (times 10). Say the step" in shown(target="norse")
    assert shown(target="snntorch") == "snntorch: sends the same spikes\n"
    found = json.loads(shown(steps=50, json=True))["targets"]
    assert [each["target"] for each in found] == ["norse", "snntorch", "sinabs", "lava", "engram"]
    activity = found[0]["activity"][0]
    assert activity["node"] == "n" and activity["theirs"] < activity["meant"] and found[4]["verdict"] == "same"


@pytest.mark.data
@pytest.mark.skipif(not NETWORK.is_file(), reason="no NIR files of other tools there")
def test_the_network_for_event_cameras_sends_what_norse_and_sinabs_send(graphs):
    graph, x = read(NETWORK), decoded(next((RECORDINGS / "3").iterdir()))[:60, None]
    report = check(graph, "norse", TOOLS["sinabs"])
    assert report.verdict == "differs" and row(report, "the reset").consequence.startswith("It is hard, not soft")
    assert check(graph, "snntorch", TOOLS["sinabs"]).verdict == "refused"
    assert check(graph, "sinabs", TOOLS["sinabs"]).equal
    for tool in ("norse", "sinabs"):
        net = make((2, 34, 34), NirOptions(semantics=tool), "", NETWORK)
        with torch.no_grad():
            ours = net.forward_steps(torch.from_numpy(x).float().transpose(0, 1))
        assert ours.any()
        np.testing.assert_array_equal(ran(tool, graph, x), ours.numpy())


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not NETWORK.is_file(), reason="no NIR files of other tools there")
@pytest.mark.parametrize("semantics", ["sinabs", "norse", "lava"])
def test_the_network_for_event_cameras_reads_a_hundred_recordings(semantics):
    """Under the semantics it was made with, and as the checker predicts others to run it."""
    net = make((2, 34, 34), NirOptions(semantics=semantics), "", NETWORK)
    found = [(path, digit) for digit in range(10) for path in sorted((RECORDINGS / str(digit)).iterdir())[:10]]
    with torch.no_grad():
        right = [int(net(torch.from_numpy(decoded(path)).float()[None]).argmax(1)) == digit for path, digit in found]
    assert np.mean(right) >= 0.98


def decoded(path, steps=340):
    """Events of a recording in frames of a millisecond, [T, 2, 34, 34]."""
    raw = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 5).astype(np.int64)
    when = (((raw[:, 2] & 127) << 16) | (raw[:, 3] << 8) | raw[:, 4]) // 1000
    frames, kept = np.zeros((steps, 2, 34, 34)), when < steps
    np.add.at(frames, (when[kept], raw[kept, 2] >> 7, raw[kept, 1], raw[kept, 0]), 1)
    return frames
