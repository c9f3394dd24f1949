"""The compiled kernel against the eager scan: spikes bit for bit, gradients to rounding."""

from __future__ import annotations

import threading

import pytest
import torch

from engram.snn import compiled as compiling
from engram.snn.engines import fused, native
from engram.snn.engines.layer import SpikingLayer
from engram.snn.neurons.firing import State
from engram.snn.neurons.options import NeuronOptions
from engram.snn.neurons.scanning import eager_scan

BF16, FP32 = torch.bfloat16, torch.float32
TOLERANCE = {FP32: {"atol": 3e-5, "rtol": 1e-4}, BF16: {"atol": 3e-2, "rtol": 3e-2}}
VARIANTS = [
    ("if", "soft", 0, "arctan", FP32),
    ("lif", "soft", 0, "arctan", BF16),
    ("lif", "hard", 2, "sigmoid", FP32),
    ("plif", "soft", 0, "gaussian", FP32),
    ("plif", "hard", 3, "arctan", BF16),
    ("cuba-lif", "soft", 0, "triangle", FP32),
    ("cuba-lif", "hard", 1, "superspike", FP32),
    ("adaptive-lif", "soft", 2, "fast-sigmoid", FP32),
    ("adaptive-lif", "hard", 0, "arctan", BF16),
]


@pytest.fixture(autouse=True)
def compiler():
    if native.library(native.Variant(0, False, False, False, False, 0, 1)) is None:
        pytest.skip("no C compiler")


def channels_last(drive):
    return drive.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, drive.shape[:2])


def everything(run, layer, drive, state, weights):
    """Spikes, the state after them, and all gradients of a loss that depends on both."""
    drive = drive.clone(memory_format=torch.preserve_format).requires_grad_()
    before = State(*(part if part is None or i == 3 else part.clone().requires_grad_() for i, part in enumerate(state)))
    layer.zero_grad()
    spikes, after = run(drive, before, layer.params(drive.ndim - 1))
    loss = (spikes * weights).sum().float() + sum(part.square().sum() for part in after[:3] if part is not None)
    loss.backward()
    grads = [part.grad for part in before if part is not None and part.requires_grad]
    return [spikes, *(part for part in after if part is not None)], [
        drive.grad,
        *grads,
        *(p.grad for p in layer.parameters()),
    ]


def assert_same(layer, drive, tolerance, pool=1):
    state = layer.scan(torch.randn(3, *drive.shape[1:]))[1].detached()
    shape = [size // pool if axis > 2 else size for axis, size in enumerate(drive.shape)]
    weights = torch.randn(shape, dtype=drive.dtype)
    ours, our_grads = everything(layer.run, layer, drive, state, weights)
    eager, eager_grads = everything(eager_scan, layer, drive, state, weights)
    assert all(torch.equal(a, b) for a, b in zip(ours, eager, strict=True))
    torch.testing.assert_close(our_grads, eager_grads, **tolerance)
    assert 0.02 < ours[0].float().mean() < 0.9


@pytest.mark.parametrize(("neuron", "reset", "refractory", "surrogate", "dtype"), VARIANTS)
@pytest.mark.parametrize("detach", [True, False])
def test_the_kernel_is_the_eager_scan(neuron, reset, refractory, surrogate, dtype, detach):
    torch.manual_seed(0)
    options = NeuronOptions(neuron=neuron, reset=reset, refractory=refractory, surrogate=surrogate, detach_reset=detach)
    layer = SpikingLayer(options, threshold=torch.rand(3) + 0.5)
    assert_same(layer, channels_last(torch.randn(7, 5, 3, 9, 7)).to(dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [FP32, BF16])
@pytest.mark.parametrize("shape", [(5, 2, 3, 6, 4), (4, 2, 16, 28, 28), (3, 2, 40, 4, 60), (4, 2, 5, 6, 7)])
@pytest.mark.parametrize("layout", [channels_last, torch.Tensor.contiguous])
def test_pooling_in_the_kernel_is_average_pooling(shape, layout, dtype):
    torch.manual_seed(0)
    layer = SpikingLayer(NeuronOptions(neuron="plif", detach_reset=False), threshold=torch.rand(shape[2]) + 0.5, pool=2)
    assert_same(layer, layout(torch.randn(shape)).to(dtype), TOLERANCE[dtype], pool=2)


def drives():
    drive = torch.randn(6, 4, 3, 5, 5)
    return {
        "constant over time": drive[0].expand(6, -1, -1, -1, -1),
        "batch before time": drive.transpose(0, 1).contiguous().transpose(0, 1),
        "with gaps": torch.randn(6, 4, 3, 5, 10)[..., ::2],
        "images innermost": drive.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3),
        "one neuron": torch.randn(50, 1, 1),
        "more than a block": torch.randn(3, 2, 5000),
    }


@pytest.mark.parametrize("name", drives())
def test_any_layout_of_the_drive(name):
    torch.manual_seed(0)
    drive = drives()[name]
    layer = SpikingLayer(NeuronOptions(neuron="plif"), threshold=torch.rand(drive.shape[2]) + 0.3)
    before = drive.clone()
    assert_same(layer, drive, TOLERANCE[FP32])
    assert torch.equal(drive, before)  # it belongs to the caller


def test_the_number_of_threads_changes_nothing():
    layer, drive = SpikingLayer(NeuronOptions(neuron="plif")), torch.randn(6, 8, 4000)
    threads, results = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        layer.zero_grad()
        spikes = layer(drive)
        spikes.sum().backward()
        results.append((spikes, layer.decay_logit.grad.clone()))
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_a_drive_changed_before_the_backward_pass_is_noticed():
    drive = torch.randn(4, 2, 3, requires_grad=True) * 1
    spikes = SpikingLayer(NeuronOptions())(drive)
    drive.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        spikes.sum().backward()


def test_without_a_compiler_the_numbers_are_the_same(monkeypatch):
    layer, drive = SpikingLayer(NeuronOptions(), pool=2), torch.randn(5, 2, 3, 4, 4)
    compiled = layer(drive)
    monkeypatch.setattr(native, "library", lambda _variant: None)
    assert torch.equal(layer(drive), compiled)


def test_a_compiler_that_fails_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "false")
    monkeypatch.setattr(compiling, "cache_folder", lambda: tmp_path)
    assert native.library.__wrapped__(native.Variant(0, False, False, False, False, 0, 1)) is None
    assert not list(tmp_path.iterdir())


def test_a_compiler_without_openmp_or_tuning_still_serves(monkeypatch, tmp_path):
    script = tmp_path / "plain-cc"
    script.write_text('#!/bin/sh\ncase "$*" in *fopenmp*|*native*) exit 1;; esac\nexec cc "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    monkeypatch.setattr(compiling, "cache_folder", lambda: tmp_path)
    plain = native.library.__wrapped__(native.Variant(0, False, False, False, False, 0, 1))
    layer, drive = SpikingLayer(NeuronOptions()), torch.randn(5, 2, 30)
    tuned = layer(drive)
    monkeypatch.setattr(native, "library", lambda _variant: plain)
    assert torch.equal(layer(drive), tuned)


def test_first_uses_at_the_same_time_leave_one_whole_file(monkeypatch, tmp_path):
    monkeypatch.setattr(compiling, "cache_folder", lambda: tmp_path)
    variant, found, barrier = native.Variant(0, False, False, False, False, 0, 1), [], threading.Barrier(4)

    def first_use():
        barrier.wait()
        found.append(native.library.__wrapped__(variant))

    threads = [threading.Thread(target=first_use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(kernel is not None for kernel in found)
    assert [path.suffix for path in tmp_path.iterdir()] == [".so"]


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "engram").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = compiling.cache_folder.__wrapped__()
    assert folder.is_dir()
    assert tmp_path not in folder.parents
    folder.rmdir()


def test_blocks_fit_the_cache_and_whole_windows():
    assert fused._block(16, 10_000, 1, 1) == 256
    assert fused._block(5000, 10_000, 1, 1) == fused.FEWEST
    assert fused._block(16, 448, 16, 2) == 448
    assert fused._block(16, 9000, 90, 2) % 180 == 0


@pytest.mark.filterwarnings("ignore")  # of torch's own tracer
@pytest.mark.parametrize(
    "neuron", ["cuba-lif", *(pytest.param(each, marks=pytest.mark.slow) for each in ("if", "plif", "adaptive-lif"))]
)
def test_what_cuda_compiles_is_the_eager_scan(monkeypatch, neuron):
    """The graph alone, not the code made of it, which needs the GPU; torch 2.11 refuses a state of our own there."""
    graph = torch.compile(fused._plain_scan, dynamic=False, backend="eager")
    monkeypatch.setattr(fused, "_compiled", lambda: graph)
    layer, drive = SpikingLayer(NeuronOptions(neuron=neuron, refractory=1)), torch.randn(20, 2, 3, 4)
    p = layer.params(drive.ndim - 1)
    spikes, state = fused._compiled_scan(drive, None, p)
    wanted, after = eager_scan(drive, None, p)
    assert torch.equal(spikes, wanted) and spikes.any()
    assert isinstance(state, State)
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(state, after, strict=True))
