import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.snn.conversion import distributions
from engram.snn.conversion.distributions import BINS, Histogram, RunningPercentile, bin_shares


def check(running, parts, percentile):
    for part in parts:
        running.add(part.T.contiguous())
    everything = torch.cat(parts, 1)
    expected = np.percentile(everything.double().numpy(), percentile, axis=1)
    np.testing.assert_allclose(running.value(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(running.largest(), everything.amax(1))


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 4),
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=6),
    percentile=st.one_of(st.floats(0.1, 100), st.sampled_from([50.0, 99.9, 100.0])),
    rectified=st.booleans(),
)
@settings(deadline=None)
def test_percentile_of_a_stream_is_numpys(seed, rows, sizes, percentile, rectified):
    parts = [torch.randn(rows, n, generator=torch.Generator().manual_seed(seed + i)) for i, n in enumerate(sizes)]
    parts = [part.relu() for part in parts] if rectified else parts
    check(RunningPercentile(percentile, sum(sizes)), parts, percentile)


@pytest.mark.parametrize("order", ["random", "rising", "falling", "equal", "one row rises"])
@pytest.mark.parametrize("block", [64, 2**21])
def test_percentile_in_any_order_and_block_size(order, block, monkeypatch):
    monkeypatch.setattr(distributions, "_BLOCK", block)
    values = torch.randn(3, 9000, generator=torch.Generator().manual_seed(0))
    if order in ("rising", "falling"):
        values = values.sort(1, descending=order == "falling").values
    if order == "equal":
        values = torch.full_like(values, 0.25)
    if order == "one row rises":
        values[1] = values[1].sort().values
    check(RunningPercentile(99.0, 9000), list(values.split(4000, 1)), 99.0)


def test_memory_holds_only_what_lies_above_the_percentile():
    running = RunningPercentile(99.0, 10_000)
    for part in torch.rand(10_000, 2).split(500):
        running.add(part)
    assert running.top is not None
    assert running.top.shape == (2, 101)


def test_a_percentile_before_all_values_were_seen_is_refused():
    running = RunningPercentile(99.0, 10)
    with pytest.raises(ValueError, match="no values"):
        running.largest()
    running.add(torch.rand(9, 2))
    with pytest.raises(ValueError, match="must have had 10 values; got 9"):
        running.value()


@pytest.mark.parametrize("block", [64, 2**21])
def test_a_histogram_counts_every_value_where_it_is(block, monkeypatch):
    """Against numpy, with the edges of bins by the formula: 256 equal ones between a value and its double."""
    monkeypatch.setattr(distributions, "_BLOCK", block)
    values = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)).relu()
    values[0, 0] = 1000.0
    values[:, 2] = 0
    histogram = Histogram(values.amax(0))
    for part in values.split(300):
        histogram.add(part)
    edges = 2.0 ** np.arange(-16, 1)[:, None] * (1 + np.arange(256) / 256)
    edges = edges.flatten()[: BINS + 1]
    np.testing.assert_allclose(bin_shares()[1:], ((edges[1:] + edges[:-1]) / 2)[1:], rtol=1e-12)
    edges[0] = 0
    for row, largest in enumerate(values.amax(0)[:2]):
        expected, _ = np.histogram(values[:, row].double() / float(largest), bins=edges)
        off = np.cumsum(histogram.counts[row].numpy() - expected)
        assert np.abs(off).max() <= 2  # a value on an edge may fall either way
    assert histogram.counts.sum(1).tolist() == [1000, 1000, 1000]
    assert histogram.counts[2, 0] == 1000
