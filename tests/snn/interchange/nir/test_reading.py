"""NIR files: what is read, and every way in which one is refused."""

import copy
import os
from pathlib import Path

import h5py
import nir
import numpy as np
import pytest

from engram.backbone.errors import UserError
from engram.snn.interchange.nir.interpreter import interpret
from engram.snn.interchange.nir.reading import from_nir, parsed, read
from engram.snn.interchange.nir.semantics import Semantics, as_metadata, said_by
from engram.snn.interchange.nir.shapes import planned

FILES = Path(os.environ.get("ENGRAM_DATA", "/nowhere")) / "third-party" / "nir"


def tree(**changes):
    """A small graph as a file holds it, with changes to its ``lif``."""
    ones = np.ones(3)
    lif = {"type": "LIF", "tau": ones, "r": ones, "v_leak": 0 * ones, "v_threshold": ones, **changes}
    lif = {key: value for key, value in lif.items() if value is not None}
    nodes = {
        "in": {"type": "Input", "shape": np.array([2])},
        "w": {"type": "Affine", "weight": np.ones((3, 2)), "bias": ones},
        "lif": lif,
        "out": {"type": "Output", "shape": np.array([3])},
    }
    edges = np.array([["in", "w"], ["w", "lif"], ["lif", "out"]], object)
    return {"version": "1.0.8", "node": {"type": "NIRGraph", "nodes": nodes, "edges": edges}}


def test_older_files_leave_v_reset_out():
    lif = parsed(tree(), "net.nir").nodes["lif"]
    assert lif.arrays["v_reset"].tolist() == [0, 0, 0] and lif.arrays["tau"].dtype == np.float64


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"type": "Lif"}, r"node 'lif' of net.nir must be of a type that is read here \(I, IF.*; got Lif. Export"),
        ({"type": None}, r"node 'lif' of net.nir must be of a type that is read here .*; got None"),
        ({"tau": None}, r"node 'lif' of net.nir must be a LIF with tau, r.*; got without tau"),
        ({"extra": np.ones(1)}, r"must be a LIF with .*; got with extra"),
        ({"tau": "three"}, r"tau of node 'lif' of net.nir must be numbers; got str"),
        ({"tau": np.zeros(3)}, r"tau of node 'lif' of net.nir must be above 0 \(seconds\); got 0.0"),
        ({"r": np.array([1, np.nan, 1])}, r"r of node 'lif' of net.nir must be finite; got infinite ones"),
        ({"r": np.ones((3, 3))}, r"node 'lif' of net.nir must be a LIF that fits what it gets; got 3, where r is 3x3"),
        ({"tau": np.ones(4)}, r"fits what it gets; got 3, where tau is 4"),
        ({"tau": {"a": 1}}, r"tau of node 'lif' of net.nir must be numbers; got dict"),
    ],
)
def test_a_node_is_refused_in_a_line(changes, said):
    with pytest.raises(UserError, match=said):
        parsed(tree(**changes), "net.nir")


def broken(where, value):
    found = copy.deepcopy(tree())
    here = found
    *path, last = where.split("/")
    for each in path:
        here = here[each]
    if value is None:
        del here[last]
    else:
        here[last] = value
    return found


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        ("node", None, r"net.nir must be a NIR file, with a NIRGraph under 'node'; got version"),
        ("node/type", "LIF", r"net.nir must be a NIR file"),
        ("node/nodes", {}, r"must be of nodes; got none"),
        (
            "node/edges",
            np.array([["in", "nowhere"]], object),
            r"an edge of .*must be between nodes that are there; got 'n",
        ),
        ("node/edges", np.array(["in", "w"], object), r"an edge of net.nir must be two names of nodes; got 'in'"),
        ("node/edges", np.ones((2, 2)), r"an edge of net.nir must be between nodes that are there"),
        ("node/nodes/out", None, r"an edge of net.nir must be between nodes that are there; got 'out'"),
        ("node/nodes/in2", {"type": "Input", "shape": np.array([2])}, r"must be one with one Input; got 2"),
        ("node/nodes/w/bias", np.ones(2), r"node 'w' .* got a bias of 2, where weight is 3x2"),
        ("node/nodes/w/weight", np.ones((3, 4)), r"node 'w' .* got 2, where weight is 3x4"),
        (
            "node/nodes/out/shape",
            np.array([4]),
            r"node 'out' of net.nir must be a Output that fits .*; got 3, where it says 4",
        ),
        ("node/nodes/in/shape", np.array([-2]), r"shape of node 'in' of net.nir must be whole numbers of at least 1"),
        ("node/nodes/in/shape", np.array([1.5]), r"shape of node 'in' of net.nir must be whole numbers"),
        ("node/nodes/in/shape", np.array([2**40]), r"and at most 1048576"),
        (
            "node/nodes/lone",
            {"type": "IF", "r": np.ones(1), "v_threshold": np.ones(1)},
            r"every node of net.nir must be reached from its input; got lone that is not",
        ),
    ],
)
def test_a_graph_is_refused_in_a_line(where, value, said):
    with pytest.raises(UserError, match=said):
        parsed(broken(where, value), "net.nir")


def test_windows_are_refused_in_a_line():
    conv = {
        "type": "Conv2d",
        "weight": np.ones((4, 2, 3, 3)),
        "bias": np.ones(4),
        "stride": np.array([1, 1]),
        "padding": np.array([0, 0]),
        "dilation": np.array([1, 1]),
        "groups": 1,
    }
    for changes, shape, said in (
        ({}, [3, 5, 5], "got 3x5x5, where weight is 4x2x3x3 in 1 groups"),
        ({"groups": 3}, [6, 5, 5], "in 3 groups"),
        ({}, [2, 2, 5], "smaller than its window 3x3"),
        ({}, [2, 5], "not channels and height and width"),
        ({"padding": "full"}, [2, 5, 5], "whole numbers, 'same' or 'valid'; got full"),
        ({"stride": np.array([0, 1])}, [2, 5, 5], "stride of node 'c' .* must be whole numbers of at least 1"),
        ({"input_shape": np.array([4, 5])}, [2, 5, 5], r"where input_shape is \(4, 5\)"),
        ({"padding": np.array([2**20, 2**20])}, [2, 5, 5], "sends at most 134217728 values"),
    ):
        nodes = {"in": {"type": "Input", "shape": np.array(shape)}, "c": {**conv, **changes}}
        nodes["out"] = {"type": "Output", "shape": np.array([1])}
        edges = [("in", "c"), ("c", "out")]
        with pytest.raises(UserError, match=said):
            parsed({"node": {"type": "NIRGraph", "nodes": nodes, "edges": edges}}, "net.nir")


def test_ends_that_are_missing_are_added_where_one_node_says_them():
    found = tree()
    del found["node"]["nodes"]["in"], found["node"]["nodes"]["out"]
    found["node"]["edges"] = np.array([["w", "lif"]], object)
    graph = parsed(found, "net.nir")
    assert graph.edges == (("w", "lif"), ("input", "w"), ("lif", "output")) and planned(graph).shapes["output"] == (3,)


def test_graphs_of_the_library_are_read(tmp_path):
    ones = np.ones(3)
    chain = nir.NIRGraph.from_list(nir.Linear(np.ones((3, 3))), nir.CubaLIF(ones, ones, ones, 0 * ones, ones))
    nir.write(tmp_path / "chain.nir", chain)
    ours, theirs = read(tmp_path / "chain.nir"), from_nir(chain)
    assert planned(ours).nodes.keys() == planned(theirs).nodes.keys()
    assert ours.nodes["cubalif"].arrays["w_in"].tolist() == [1, 1, 1]


def test_what_is_no_nir_file_is_refused(tmp_path):
    (tmp_path / "text.nir").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="not an HDF5 file; it is a pointer"):
        read(tmp_path / "text.nir")
    with h5py.File(tmp_path / "link.nir", "w") as file:
        file["node"] = h5py.ExternalLink("/etc/passwd", "/")
    with pytest.raises(UserError, match="a link to another place or file at /node"):
        read(tmp_path / "link.nir")


def test_semantics_that_were_damaged_are_refused():
    assert said_by(as_metadata(Semantics(dt=0.5))) == Semantics(dt=0.5) and said_by({}) is None
    for text in ("{", '{"dt": "x"}', '{"dt": -1}', '{"more": 1}', '{"reset": "no"}', '{"floor": 3}', "[]"):
        with pytest.raises(UserError, match="the semantics in a NIR graph must be those that engram writes"):
            said_by({"engram": text})


@pytest.mark.data
@pytest.mark.skipif(not FILES.is_dir(), reason="no NIR files of other tools there")
def test_files_of_other_tools():
    lif = read(FILES / "01_lif" / "lif_norse.nir")
    x = np.zeros((100, 1, 1))
    x[[10, 11, 12, 40]] = 0.5
    sent = interpret(lif, x, Semantics(dt=1e-3, leaky_gain="no r"), ["1"])
    v, spikes = 0.0, []
    for each in x[:, 0, 0]:  # tau = 2.5 ms, threshold 0.1
        v += 0.4 * (each - v)
        spikes.append(float(v > 0.1))
        v = 0.0 if spikes[-1] else v
    assert sent.outputs[:, 0, 0].tolist() == spikes and sum(spikes) == 4
    two = read(FILES / "01_lif" / "debug_spike_representation" / "two_lif_neurons.nir")
    run = interpret(two, np.zeros((60, 1, 1)), Semantics(dt=1e-3), ["lif1", "lif2"])
    # v_leak 1.2 pulls the first over 1 in the step in which 1 - 0.9^n > 1 / 1.2, and again and again
    assert np.flatnonzero(run.sent["lif1"]).tolist() == [17, 35, 53]
    assert run.potentials["lif2"].max() == pytest.approx(0.1, rel=0.2) and not run.outputs.any()
    rockpool = read(FILES / "01_lif" / "lif_rockpool.nir")  # its output says 1x1x1, which nir 1.0.8 refuses
    assert planned(rockpool).shapes["output"] == (1,)
    with pytest.raises(ValueError, match="type mismatch"):
        nir.read(FILES / "01_lif" / "lif_rockpool.nir")
