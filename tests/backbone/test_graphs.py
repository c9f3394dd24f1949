"""Recorded passes: the bookkeeping anywhere, the recordings themselves on a GPU."""

from contextlib import nullcontext

import pytest
import torch

from engram.backbone.hardware import autocast
from engram.backbone.nets.making import build
from engram.backbone.training import recorded as graphs
from engram.backbone.training.recorded import Passes, can_record

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def network(name="mlp", **options):
    torch.manual_seed(0)
    return build(name, options, (1, 8, 8), 10, torch.zeros(1), torch.ones(1))


@pytest.fixture
def counted(monkeypatch):
    """Passes on a CPU whose recordings are names."""
    made = []

    def record(self, run, images):
        made.append(run)
        name = len(made)
        return lambda x: (name, run(x))

    monkeypatch.setattr(Passes, "_record", record)
    monkeypatch.setattr(graphs, "RECORD_AFTER", 2)
    return Passes(network(), "cpu", "fp32")


def step(passes, *sizes):
    """The names of the recordings used in a step with passes of so many images; None: launched kernel by kernel."""
    passes.begin()
    found = [passes(torch.zeros(size, 1, 8, 8)) for size in sizes]
    return [each[0] if isinstance(each, tuple) else None for each in found]


def test_every_pass_of_a_step_and_every_shape_has_a_recording_of_its_own(counted):
    assert [step(counted, 4, 4) for _ in range(4)] == [[None, None], [None, None], [1, 2], [1, 2]]
    assert [step(counted, 4, 3)[1] for _ in range(3)] == [None, None, 3]
    assert step(counted, 4, 4) == [1, 2]


def test_recordings_of_tensors_that_lie_elsewhere_now_are_forgotten(counted):
    for _ in range(3):
        step(counted, 4)
    counted.renew()
    assert step(counted, 4) == [1]
    counted.model.head.weight.data = counted.model.head.weight.data.clone()
    counted.renew()
    assert step(counted, 4) == [2]
    counted.model.head.bias.requires_grad_(False)
    counted.renew()
    assert step(counted, 4) == [3]


def test_nothing_is_recorded_while_an_earlier_pass_that_was_not_is_alive(counted):
    """Its gradients are added up on the default stream, which ends a recording."""
    assert [step(counted, size, 3) for size in (4, 5, 6, 7)] == [[None, None]] * 4
    assert [step(counted, 4, 3) for _ in range(2)] == [[None, None], [1, 2]]


def test_the_recording_used_longest_ago_makes_room(monkeypatch, counted):
    monkeypatch.setattr(graphs, "MOST", 2)
    for size in (4, 5, 4, 5, 4, 5):
        step(counted, size)
    assert [step(counted, 5), step(counted, 4)] == [[2], [1]]
    for _ in range(3):
        step(counted, 6)
    assert [step(counted, 4), step(counted, 6), step(counted, 5)] == [[1], [3], [4]]


def test_only_what_is_the_same_every_time_is_recorded():
    model = network()
    assert can_record(model, "cuda") and not can_record(model, "cpu")
    for hook in (
        model.backbone.register_forward_hook,
        model.backbone.register_forward_pre_hook,
        model.head.register_full_backward_hook,
        model.head.register_full_backward_pre_hook,
        model.head.weight.register_hook,
    ):
        handle = hook(lambda *_: None)
        assert not can_record(model, "cuda")
        handle.remove()
        assert can_record(model, "cuda")
    model.backbone.recompute = True
    assert not can_record(model, "cuda")
    normalised = network("resnet-tiny")
    assert can_record(normalised, "cuda")
    next(each for each in normalised.modules() if isinstance(each, torch.nn.BatchNorm2d)).momentum = None
    assert not can_record(normalised, "cuda")


@pytest.mark.parametrize(
    ("name", "options", "tensors"),
    [("mlp", {}, 6), ("resnet-tiny", {"pooling": "stride"}, 11), ("resnet-tiny", {}, 9)],
)
def test_weights_cast_all_at_once_are_those_that_autocast_casts(name, options, tensors):
    """A convolution that pools casts what it has made of its weights."""
    images = torch.randn(2, 6, 1, 8, 8)

    def everything(at_once):
        model = network(name, **options).train()
        at_once = graphs._Pass(model, "cpu", "bf16") if at_once else None
        assert at_once is None or len(at_once.cast) == tensors
        for x in images:
            with nullcontext() if at_once else torch.autocast("cpu", torch.bfloat16):
                logits = at_once(x) if at_once else model.forward_normalised(x).float()
            logits.square().mean().backward()
        assert logits.dtype == torch.float32
        return [logits, *(p.grad for p in model.parameters()), *model.state_dict().values()]

    ours, theirs = everything(True), everything(False)
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("name", "options"), [("mlp", {"dropout": 0.2}), ("resnet-tiny", {"width": 0.25})])
def test_numbers_are_those_of_the_same_kernels_one_by_one(monkeypatch, name, options, precision):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(graphs, "RECORD_AFTER", 3)

    def train(recorded):
        model = network(name, **options).to("cuda", memory_format=torch.channels_last).train()
        passes = Passes(model, "cuda", precision)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        random = torch.Generator().manual_seed(0)

        def plain(x):
            with autocast("cuda", precision):
                return model.forward_normalised(x).float()

        for number in range(8):
            torch.cuda.manual_seed(number)
            passes.begin()
            images = torch.randn(3, 6, 1, 8, 8, generator=random).cuda()
            sum((passes if recorded else plain)(part).square().mean() for part in images).backward()
            optimizer.step()
            optimizer.zero_grad()
        assert len(passes._recorded) == (3 if recorded else 0)
        return torch.cat([tensor.double().flatten() for tensor in model.state_dict().values()])

    torch.testing.assert_close(train(True), train(False), rtol=0, atol=0 if precision == "bf16" else 1e-6)
