"""Graphs written as the nir library does, and read again: unchanged, and unchanged in meaning."""

import numpy as np
import pytest

from engram.backbone.hdf5.reading import Reader
from engram.snn.interchange.nir.graph import Node
from engram.snn.interchange.nir.interpreter import interpret
from engram.snn.interchange.nir.reading import from_nir, parsed, read
from engram.snn.interchange.nir.structure import as_text, from_text
from engram.snn.interchange.nir.writing import to_nir, with_shapes, write


@pytest.fixture(scope="module")
def reader():
    with Reader() as found:
        yield found


def same(a, b):
    """Whether two graphs say the same."""
    assert list(a.nodes) == list(b.nodes) or set(a.nodes) == set(b.nodes)
    assert a.edges == b.edges
    for name, node in a.nodes.items():
        other = b.nodes[name]
        if not isinstance(node, Node):
            same(node, other)
            continue
        assert node.kind == other.kind and dict(node.settings) == dict(other.settings), name
        assert node.arrays.keys() == other.arrays.keys()
        for field, value in node.arrays.items():
            np.testing.assert_array_equal(value, other.arrays[field])


@pytest.mark.parametrize("seed", range(18))
def test_random_graphs_survive_writing_reading_and_writing(graphs, seed, tmp_path, reader):
    draw, graph = graphs.random_graph(100 + seed)
    graph, file = with_shapes(graph), tmp_path / "graph.nir"
    write(graph, file)
    again = parsed(reader.read(file), "graph.nir")
    same(graph, again)
    same(again, from_nir(to_nir(again)))
    write(again, file)
    same(again, parsed(reader.read(file), "graph.nir"))
    how, x = graphs.HOW[seed % len(graphs.HOW)], graphs.spikes(draw, 6, 2)
    np.testing.assert_array_equal(interpret(graph, x, how).outputs, interpret(again, x, how).outputs)
    assert as_text(from_text(as_text(again))) == as_text(again)


def test_a_file_is_read_from_its_path(graphs, tmp_path):
    _, graph = graphs.random_graph(3)
    graph = with_shapes(graph)
    write(graph, tmp_path / "graph.nir")
    same(graph, read(tmp_path / "graph.nir"))
    assert [each.name for each in tmp_path.iterdir()] == ["graph.nir"]
