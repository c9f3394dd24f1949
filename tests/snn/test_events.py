from collections import defaultdict
from functools import cache

import pytest
import torch
from torch import nn

from engram.backbone.nets.blocks import Add, StaticBackbone
from engram.snn import compiled as native
from engram.snn.conversion.balancing import Thresholds
from engram.snn.conversion.convert import lower, with_neurons
from engram.snn.neurons.integrate_fire import if_scan
from engram.snn.simulation import crossover, events
from engram.snn.simulation.counting import Tally, synapses
from engram.snn.simulation.crossover import pays
from engram.snn.simulation.events import Driven, Spikes, convolved, convolved_and_fired, fired, fits, pooled

pytestmark = pytest.mark.skipif(events.library() is None, reason="no C compiler")

# channels, height, width, filters, kernel, stride, padding, pooled windows
SHAPES = {
    "3x3": (16, 6, 6, 32, 3, 1, 1, 1),
    "few odd channels": (3, 7, 5, 10, 3, 1, 1, 1),
    "stride, no padding": (17, 9, 8, 48, 3, 2, 0, 1),
    "nothing square": (32, 6, 7, 130, (4, 3), (2, 1), (1, 2), 1),
    "pooled": (20, 8, 8, 64, 3, 1, 1, 2),
    "pooled, uneven": (5, 11, 10, 16, 3, 1, 1, 3),
    "wide": (70, 3, 3, 300, 1, 1, 0, 1),
    "wider padding than picture": (4, 2, 2, 8, 3, 1, 3, 1),
}


def spikes(*shape, density=0.1, pool=1):
    data = (torch.rand(shape, generator=torch.Generator().manual_seed(1)) < density).to(torch.uint8)
    return Spikes(data, int(data.sum()), pool)


def case(name, density=0.1):
    channels, height, width, filters, kernel, stride, padding, pool = SHAPES[name]
    torch.manual_seed(0)
    return (
        spikes(5, 2, height, width, channels, density=density, pool=pool),
        nn.Conv2d(channels, filters, kernel, stride, padding),
    )


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("density", [0.1, 1.0, 0.0])
@torch.no_grad()
def test_a_convolution_that_follows_spikes_is_the_dense_one(name, density):
    some, layer = case(name, density)
    torch.testing.assert_close(convolved(some, layer), layer(some.dense()), rtol=1e-5, atol=2e-6)
    assert convolved(some, layer).is_contiguous(memory_format=torch.channels_last)


def exactly(layer):
    """Weights of few bits: no order of summation rounds."""
    for parameter in layer.parameters():
        parameter.copy_((parameter * 16).round() / 16)
    return layer


@pytest.mark.parametrize("name", [name for name in SHAPES if SHAPES[name][-1] != 3])
@pytest.mark.parametrize("current", [None, 0.25])
@torch.no_grad()
def test_neurons_that_run_along_fire_as_those_behind_it_do(name, current):
    some, layer = case(name)
    driven, extra = Driven(some, exactly(layer)), None if current is None else torch.full((1,), current)
    drive = layer(some.dense()).unflatten(0, (5, 2))
    v = torch.rand(drive[0].shape, generator=torch.Generator().manual_seed(2)).mul(8).round().div(8)
    left = v.clone()
    expected = if_scan(drive, left, torch.empty_like(drive), extra)
    together, v_together = convolved_and_fired(driven, v.clone(), extra)
    apart, v_apart = fired(drive, v.clone(), extra)
    for found, after in ((together, v_together), (apart, v_apart)):
        assert torch.equal(found.channels_first().float(), expected)
        assert torch.equal(after, left)
        assert found.count == expected.sum() > 0


@torch.no_grad()
def test_linear_layers_follow_spikes():
    some, layer = spikes(5, 3, 33), nn.Linear(33, 7, bias=False)
    assert fits(some, layer)
    torch.testing.assert_close(convolved(some, layer), layer(some.dense()))


@torch.no_grad()
def test_a_constant_drive_is_read_again_at_every_step():
    drive, current = torch.randn(2, 3, 4, 5).expand(6, -1, -1, -1, -1), torch.tensor([0.25, 0.0, -0.5])
    v = torch.rand(2, 3, 4, 5)
    expected = if_scan(drive, v.clone(), torch.empty(drive.shape), current.view(3, 1, 1))
    assert torch.equal(fired(drive, v, current)[0].channels_first().float(), expected)


@pytest.mark.parametrize("threads", [1, 2, 5])
@torch.no_grad()
def test_threads_share_images_and_their_rows(threads):
    some, layer = case("3x3")
    expected = convolved_and_fired(Driven(some, layer), torch.zeros(2, 32, 6, 6), None)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = convolved_and_fired(Driven(some, layer), torch.zeros(2, 32, 6, 6), None)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0].data, expected[0].data)
    assert found[0].count == expected[0].count


@torch.no_grad()
def test_any_processor_and_one_thread_will_do(monkeypatch, tmp_path):
    script = tmp_path / "plain-cc"
    script.write_text('#!/bin/sh\ncase "$*" in *fopenmp*|*native*) exit 1;; esac\nexec cc "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    monkeypatch.setattr(native, "cache_folder", lambda: tmp_path)
    plain = events.library.__wrapped__()
    monkeypatch.setattr(events, "library", lambda: plain)
    assert events.lanes() == 4
    for name in SHAPES:
        some, layer = case(name)
        torch.testing.assert_close(convolved(some, layer), layer(some.dense()), rtol=1e-5, atol=2e-6)
        v = torch.zeros_like(Driven(some, exactly(layer)).like())
        together, _ = convolved_and_fired(Driven(some, layer), v.clone(), None)
        apart, _ = fired(layer(some.dense()).unflatten(0, (5, 2)), v, None)
        assert some.pool == 3 or torch.equal(together.data, apart.data)


def test_what_has_no_compact_form_is_left_alone():
    some = spikes(4, 2, 6, 6, 8)
    fine = nn.Conv2d(8, 8, 3)
    assert fits(some, fine)
    for other in (
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 8, 3, dilation=2),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(8, 8, 3, padding="same"),
        nn.Conv2d(8, 8, 3).double(),
        nn.Conv2d(8, 8, 7),  # larger than the picture: torch says so
    ):
        assert not fits(some, other)
    assert not fits(some, nn.AdaptiveAvgPool2d(1))


@pytest.mark.parametrize("pools", [(nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1)), (nn.AvgPool2d(3), nn.AvgPool2d(2))])
def test_average_pooling_is_put_off_until_somebody_looks(pools):
    some = spikes(4, 2, 9, 9, 600)
    expected, found = some.dense(), some
    assert torch.equal(expected, some.channels_first().flatten(0, 1).float())
    for pool in pools:
        found, expected = pooled(found, pool), pool(expected)
    torch.testing.assert_close(found.dense(), expected)
    assert found.data is some.data


@pytest.mark.parametrize(
    "pool",
    [nn.AvgPool2d(3, 2), nn.AvgPool2d(2, padding=1), nn.AvgPool2d((2, 3)), nn.AvgPool2d(7), nn.AdaptiveAvgPool2d(2)],
)
def test_other_average_pooling_takes_tensors(pool):
    assert pooled(spikes(4, 2, 6, 6, 8), pool) is None


class Mixed(nn.Module):
    """Spikes that a convolution, a residual addition, a grouped convolution and a pooling take, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.grouped = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.pool, self.add = nn.AvgPool2d(2), Add()
        self.first, self.second, self.third, self.fourth = (nn.ReLU() for _ in range(4))
        self.flat, self.linear, self.last = nn.Flatten(), nn.Linear(64, 12), nn.Linear(12, 5)

    def forward(self, x):
        x = self.first(x)
        y = self.second(self.add(self.conv(x), x))
        y = self.third(self.add(self.grouped(self.pool(y)), self.pool(x)))
        return self.last(self.fourth(self.linear(self.flat(y))))


@pytest.mark.parametrize("options", [{}, {"pre_simulation": 4}])
@torch.no_grad()
def test_a_network_computes_the_same_without_a_compiler(exact, options, monkeypatch):
    net = exact(StaticBackbone((2, 8, 8), [nn.Conv2d(2, 4, 1)], Mixed()))
    graph, never = lower(net), torch.zeros(1, dtype=torch.bool)
    names = [name for name, module in graph.named_modules() if isinstance(module, nn.ReLU)]
    converted = with_neurons(net, graph, {name: Thresholds(torch.ones(1), never) for name in names}, 9, **options)
    fan_out = synapses(converted.graph, nn.Linear(converted.feature_dim, 2), converted.in_shape).fan_out
    images = torch.randint(-8, 8, (5, 2, 8, 8), generator=torch.Generator().manual_seed(3)) / 4
    found, tallies = [], []
    for limit in (1.0, 0.2, None):
        monkeypatch.setattr(crossover, "limits", lambda limit=limit: defaultdict(lambda: limit or 0.0))
        if limit is None:
            monkeypatch.setattr(events, "library", lambda: None)
        tallies.append(Tally(fan_out, [4, 9] if not options else [9]))
        found.append((converted.simulate(images, tallies[-1]), *converted.stages(images)))
    assert tallies[0].spikes.sum() > 0
    for other, tally in zip(found[1:], tallies[1:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
        assert torch.equal(tally.spikes, tallies[0].spikes)
        assert torch.equal(tally.operations, tallies[0].operations)


@pytest.fixture
def measured_here(monkeypatch, tmp_path):
    """Limits are measured anew, and kept in a folder of the test."""
    monkeypatch.setattr(crossover, "kept_at", lambda: tmp_path / "limits.json")
    monkeypatch.setattr(crossover, "limits", cache(crossover.limits.__wrapped__))
    return tmp_path


def test_dense_layers_are_left_alone_where_they_are_faster(measured_here, monkeypatch):
    seconds = {"followed": 1.0, "more followed": 2.0, "dense": 1.5}
    monkeypatch.setattr(crossover, "_fastest", lambda *works: [*seconds.values()])
    found = crossover.limits()
    assert set(found) == {f"{kind}-{n}" for kind in ("plain", "pooled", "linear") for n in crossover.FILTERS}
    half_way = (crossover._SPARSE + crossover._DENSE) / 2
    assert all(limit == pytest.approx(half_way, abs=0.02) for limit in found.values())
    layer = nn.Conv2d(8, 24, 3)
    assert pays(spikes(4, 2, 6, 6, 8, density=half_way - 0.1), layer)
    assert not pays(spikes(4, 2, 6, 6, 8, density=half_way + 0.1), layer)
    assert not pays(spikes(4, 2, 6, 6, 8), nn.Conv2d(8, 8, 3, groups=2))


def test_the_first_process_decides_for_all(measured_here, monkeypatch):
    monkeypatch.setattr(crossover, "_crossing", lambda kind, filters: 0.3)
    first = crossover.limits()
    crossover._publish(measured_here / "limits.json", dict.fromkeys(first, 0.9))
    crossover.limits.cache_clear()
    assert crossover.limits() == first == dict.fromkeys(first, 0.3)
    assert [path.name for path in measured_here.iterdir()] == ["limits.json"]


def test_nothing_is_measured_where_nothing_lasts(monkeypatch):
    monkeypatch.setattr(crossover, "kept_at", lambda: None)
    monkeypatch.setattr(crossover, "_crossing", None)
    assert set(crossover.limits.__wrapped__().values()) == {crossover.UNMEASURED}


@torch.inference_mode()
def test_a_measurement_finds_a_limit_that_can_be(measured_here):
    found = crossover._crossing("plain", 64)
    assert crossover._LEAST <= found <= crossover._MOST
    assert torch.get_num_threads() >= 1
