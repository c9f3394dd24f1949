import numpy as np
import pytest
import torch
from torch import nn

from engram.backbone.errors import UserError
from engram.backbone.nets.blocks import StaticBackbone
from engram.backbone.nets.folding import trace
from engram.snn.conversion.balancing import (
    LTB_TOLERANCE,
    columns,
    local_balance,
    nearest_quantised,
    relu_names,
    thresholds,
)
from engram.snn.conversion.distributions import Histogram


@pytest.fixture
def two_relus():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stages = [nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU())]
        tail = nn.Sequential(nn.Flatten(), nn.Linear(48, 4), nn.ReLU())
        return trace(StaticBackbone((1, 6, 6), stages, tail))


def found(graph, images, method="percentile", batch=7, **options):
    return thresholds(graph, relu_names(graph), lambda: images.split(batch), len(images), method=method, **options)


def rows_of(graph, images, per):
    """What the first activation puts out, [rows, n] float64."""
    first = graph.get_submodule("body.0.0")(images).relu()
    return columns(first, per).T.double().numpy()


def pictures(count=40, seed=0):
    return torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("per", ["channel", "layer"])
@torch.no_grad()
def test_thresholds_are_percentiles_or_maxima_of_the_relu_outputs(two_relus, per, layout):
    images, graph = pictures(), two_relus.to(memory_format=layout)
    rows = rows_of(two_relus, images, per)
    percentile = found(graph, images, percentile=99.0, per=per)
    np.testing.assert_allclose(percentile["body.0.1"].threshold, np.percentile(rows, 99.0, axis=1), rtol=1e-5)
    assert percentile["tail.2"].threshold.shape == ((4,) if per == "channel" else (1,))
    largest = found(graph, images, "max", per=per)
    np.testing.assert_allclose(largest["body.0.1"].threshold, rows.max(1), rtol=1e-6)


@pytest.mark.parametrize("method", ["max", "percentile", "mse"])
def test_batches_do_not_matter(two_relus, method):
    one, many = (found(two_relus, pictures(), method, batch) for batch in (40, 3))
    for name, value in one.items():
        torch.testing.assert_close(many[name].threshold, value.threshold)


@torch.no_grad()
def test_silent_and_rare_channels(two_relus):
    conv = two_relus.get_submodule("body.0.0")
    conv.bias.copy_(torch.tensor([-1e3, 0.0, 0.0]))  # channel 0 never fires
    conv.weight[1].zero_()
    conv.weight[1, 0, 0, 0] = 1.0  # channel 1 fires only where a pixel is positive
    conv.weight[2].fill_(-1.0)  # channel 2 fires everywhere
    images = -torch.rand(50, 1, 6, 6)
    images[3, 0, 0, 0] = 0.75  # ... which is one place of 800
    for method in ("percentile", "mse", "ltb"):
        layer = found(two_relus, images, method, 25, percentile=99.0)["body.0.1"]
        assert layer.silent.tolist() == [True, False, False]
        assert layer.threshold[0] == layer.threshold[1:].max() > 0.75
        assert bool((layer.threshold > 0).all())
        if method == "percentile":
            assert layer.threshold[1] == 0.75  # its 99th percentile is zero; its maximum is not


@pytest.mark.parametrize("method", ["max", "percentile", "mse", "ltb"])
@torch.no_grad()
def test_a_layer_that_never_fires_still_has_positive_thresholds(two_relus, method):
    two_relus.get_submodule("tail.1").bias.fill_(-1e6)
    layer = found(two_relus, torch.rand(4, 1, 6, 6), method)["tail.2"]
    assert layer.silent.all()
    assert bool((layer.threshold > 0).all())


@pytest.mark.parametrize("method", ["max", "percentile", "mse", "ltb"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@torch.no_grad()
def test_activations_that_are_no_numbers_are_named(two_relus, method, bad):
    two_relus.get_submodule("tail.1").bias[1] = bad
    with pytest.raises(UserError, match=r"the activations of tail.2 must be finite numbers"):
        found(two_relus, pictures(8), method)
    two_relus.get_submodule("tail.1").bias[1] = 0  # and nothing listens any longer
    two_relus(pictures(8) * torch.nan)


@pytest.mark.parametrize("method", ["max", "percentile", "mse", "ltb"])
def test_no_images_at_all(two_relus, method):
    with pytest.raises(UserError, match="calibration images must be at least one"):
        thresholds(two_relus, relu_names(two_relus), lambda: iter([]), 0, method=method)


@pytest.mark.parametrize("levels", [1, 4, 16, 64])
@pytest.mark.parametrize("per", ["channel", "layer"])
@torch.no_grad()
def test_mse_has_the_least_error_of_any_threshold(two_relus, per, levels, quantisation_error, least_quantisation_error):
    images = pictures(200)
    chosen = found(two_relus, images, "mse", per=per, levels=levels)["body.0.1"].threshold.tolist()
    for row, threshold in zip(rows_of(two_relus, images, per), chosen, strict=True):
        assert quantisation_error(row, threshold, levels) < 1.01 * least_quantisation_error(row, levels) + 1e-12


@pytest.mark.parametrize("levels", [1, 4, 8, 64])
@pytest.mark.parametrize("outlier", [3.0, 30.0, 100.0])
def test_an_outlier_costs_no_precision(levels, outlier, quantisation_error, least_quantisation_error):
    """At any threshold the one value adds to the error; the search must find the best of them all the same."""
    values = 0.2 * torch.randn(50_000, generator=torch.Generator().manual_seed(0)).relu()
    values[123] = outlier
    histogram = Histogram(values.max()[None])
    histogram.add(values[:, None])
    threshold = float(nearest_quantised(histogram, levels))
    values = values.numpy()
    assert quantisation_error(values, threshold, levels) < 1.01 * least_quantisation_error(values, levels)


@torch.no_grad()
def test_fewer_levels_want_a_lower_threshold(two_relus):
    by_levels = [found(two_relus, pictures(200), "mse", levels=n)["body.0.1"].threshold.sum() for n in (2, 8, 64)]
    largest = found(two_relus, pictures(200), "max")["body.0.1"].threshold.sum()
    assert by_levels[0] < by_levels[1] < by_levels[2] <= largest


@pytest.mark.parametrize("per", ["channel", "layer"])
@torch.no_grad()
def test_local_balancing_follows_its_rule(two_relus, per):
    """Written out: clipped outputs feed the next layer, thresholds grow until they grow no more."""
    images = pictures(60)
    ours = local_balance(two_relus, relu_names(two_relus), lambda: images.split(20), per)
    conv, linear = two_relus.get_submodule("body.0.0"), two_relus.get_submodule("tail.1")
    first = second = torch.zeros(())
    for update in range(1000):
        x = conv(images.split(20)[update % 3]).relu()
        dims = (0, 2, 3) if per == "channel" else (0, 1, 2, 3)
        grown = first + (x - first).clamp_min(0).mean(dims, keepdim=True)
        y = linear(torch.minimum(x, grown).flatten(1)).relu()
        wider = second + (y - second).clamp_min(0).mean(dims[:1] if per == "channel" else (0, 1), keepdim=True)
        changes = [float((new - old).sum() / new.sum()) for new, old in ((grown, first), (wider, second))]
        first, second = grown, wider
        if max(changes) <= LTB_TOLERANCE:
            break
    torch.testing.assert_close(ours["body.0.1"], first.flatten(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours["tail.2"], second.flatten(), rtol=1e-4, atol=1e-6)
    largest = found(two_relus, images, "max", per=per)["body.0.1"].threshold
    assert bool((ours["body.0.1"] < largest).all())
    assert bool((ours["body.0.1"] > 0.3 * largest).all())


@torch.no_grad()
def test_local_balancing_never_exceeds_a_maximum_that_hardly_varies(two_relus):
    two_relus.get_submodule("body.0.0").bias.fill_(100.0)
    images = pictures(60)
    ours = local_balance(two_relus, ["body.0.1"], lambda: images.split(20))["body.0.1"]
    largest = found(two_relus, images, "max")["body.0.1"].threshold
    assert bool((ours <= largest).all())
    assert bool((ours > 0.97 * largest).all())
