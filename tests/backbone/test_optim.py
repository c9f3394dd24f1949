import copy
import inspect
import math
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engram.backbone.nets.making import build
from engram.backbone.training import optim
from engram.backbone.training.optim import MUON_REST, Muon, Optimizers, orthogonalise, relative_rate, step_at_once


@pytest.mark.parametrize("shape", [(8, 8), (5, 20), (20, 5), (1, 7)])
def test_orthogonalise_against_the_svd(shape):
    matrix = torch.randn(shape, dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    got = orthogonalise(matrix, steps=12)
    values = torch.linalg.svdvals(got)
    assert values.min() > 0.5 and values.max() < 1.3
    rotated = u.T @ got @ v.T  # diagonal and positive: the same singular vectors, the same signs
    torch.testing.assert_close(rotated, torch.diag(rotated.diagonal()), atol=1e-8, rtol=0)
    assert (rotated.diagonal() > 0.5).all()


def test_three_steps_follow_the_published_polynomial():
    matrix = torch.randn(6, 4, dtype=torch.float64)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / (matrix.norm() + 1e-7)
    for _ in range(3):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    torch.testing.assert_close(orthogonalise(matrix), u @ torch.diag(s) @ v)


def test_orthogonalise_nothing():
    assert torch.equal(orthogonalise(torch.zeros(3, 4)), torch.zeros(3, 4))


@pytest.mark.parametrize("shape", [(6, 4), (3, 8), (6, 2, 3, 3), (40, 1, 2, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_muon_by_hand(shape, layout):
    if len(shape) < 4:
        layout = torch.contiguous_format
    lr, mu, wd = 0.1, 0.6, 0.02
    weight = nn.Parameter(torch.randn(shape, dtype=torch.float64).to(memory_format=layout))
    want, momentum = weight.detach().clone(), torch.zeros(shape, dtype=torch.float64)
    optimizer = Muon([weight], lr, mu, wd)
    for _ in range(3):
        gradient = torch.randn(shape, dtype=torch.float64)
        weight.grad = gradient.clone()
        optimizer.step()
        momentum = mu * momentum + gradient
        matrix = (gradient + mu * momentum).reshape(shape[0], -1)
        update = orthogonalise(matrix) * math.sqrt(max(1, shape[0] / matrix.shape[1]))
        want = (1 - lr * wd) * want - lr * update.reshape(shape)
        torch.testing.assert_close(weight.detach(), want)


def small():
    return build("mlp", {"width": 0.05, "normalisation": "batch"}, (1, 4, 4), 3, torch.zeros(1), torch.ones(1))


def stepped(kind, momentum=0.9, decay=0.1, steps=4):
    """Weights after some steps with our optimizers, and with torch's own on a copy."""
    torch.manual_seed(0)
    ours, theirs = small(), small()
    theirs.load_state_dict(ours.state_dict())
    optimizers = Optimizers(ours, kind, 0.05, momentum, decay)
    split = [
        {"params": [p for p in theirs.parameters() if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in theirs.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    if kind == "sgd":
        reference = torch.optim.SGD(split, 0.05, momentum, nesterov=momentum > 0)
    else:
        reference = torch.optim.AdamW(split, 0.05, (momentum, 0.999))
    for step in range(steps):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        for group in reference.param_groups:
            group["lr"] = 0.05 * (step + 1) / steps
        reference.step()
        optimizers.step((step + 1) / steps)
    return ours, theirs


@pytest.mark.parametrize(("kind", "momentum"), [("sgd", 0.9), ("sgd", 0.0), ("adamw", 0.9)])
def test_sgd_and_adamw_are_torchs(kind, momentum):
    ours, theirs = stepped(kind, momentum)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)
        assert p.grad is None


@pytest.mark.parametrize(("kind", "momentum"), [("sgd", 0.9), ("sgd", 0.0), ("adamw", 0.9), ("muon", 0.6)])
def test_steps_at_once_are_torchs_own_to_the_last_bit(monkeypatch, kind, momentum):
    """With and without all gradients, and gone on with from a checkpoint."""

    def run(at_once):
        taken = []

        def noted(part):
            taken.append(at_once and step_at_once(part))
            return taken[-1]

        monkeypatch.setattr(optim, "step_at_once", noted)
        torch.manual_seed(0)
        model = small()
        optimizers = Optimizers(model, kind, 0.05, momentum, 0.1)
        for step in range(6):
            for p in list(model.parameters())[step == 3 :]:
                p.grad = torch.randn_like(p)
            optimizers.step(1 - step / 6)
            if step == 2:
                saved = optimizers.state_dict()
                optimizers = Optimizers(model, kind, 0.05, momentum, 0.1)
                optimizers.load_state_dict(saved)
        return torch.cat([p.detach().flatten() for p in model.parameters()]), sum(taken)

    (ours, often), (theirs, never) = run(True), run(False)
    assert torch.equal(ours, theirs)
    assert (often, never) == (6, 0)


@pytest.mark.parametrize("kind", ["sgd", "adamw", "muon"])
def test_torchs_compiler_is_not_imported(monkeypatch, kind):
    """It would be a third of the time that a process takes to start training."""
    for name in ("add_param_group", "state_dict", "load_state_dict"):
        wrapped = inspect.unwrap(getattr(torch.optim.Optimizer, name))
        monkeypatch.delattr(wrapped, "__dynamo_disable", raising=False)  # torch keeps what it made with the compiler
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    model = small()
    optimizers = Optimizers(model, kind, 0.05, 0.9, 0.1)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizers.step(1.0)
    optimizers.load_state_dict(optimizers.state_dict())


def test_tensors_of_several_types_are_left_to_torch():
    model = small()
    model.head.double()
    optimizers = Optimizers(model, "adamw", 0.05, 0.9, 0.1)
    for _ in range(3):
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizers.step(1.0)
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize("kind", ["sgd", "adamw", "muon"])
def test_weight_decay_spares_biases_and_norms(kind):
    model = small()
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
    optimizers = Optimizers(model, kind, 0.5, 0.0, 0.1)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizers.step(1.0)
    head = 1 - 0.5 * MUON_REST * 0.1 if kind == "muon" else 0.95
    for name, p in model.named_parameters():
        want = 1.0 if p.ndim < 2 else head if name == "head.weight" else 0.95
        torch.testing.assert_close(p.detach(), torch.full_like(p, want), msg=name)


def test_muon_takes_the_hidden_matrices_and_adamw_the_rest():
    model = small()
    muon, adamw = Optimizers(model, "muon", 0.2, 0.6, 0.0).parts
    taken = {id(p) for group in muon.param_groups for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in taken}
    assert names == {name for name, p in model.named_parameters() if p.ndim == 2} - {"head.weight"}
    others = [p for group in adamw.param_groups for p in group["params"]]
    assert len(names) + len(others) == len(list(model.parameters()))
    assert {group["lr"] for group in adamw.param_groups} == {0.2 * MUON_REST}


@pytest.mark.parametrize("kind", ["sgd", "adamw", "muon"])
def test_frozen_weights_stay(kind):
    model = small()
    model.backbone.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizers = Optimizers(model, kind, 0.5, 0.9, 0.1)
    for p in model.head.parameters():
        p.grad = torch.ones_like(p)
    optimizers.step(1.0)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"head.weight", "head.bias"}


@pytest.mark.parametrize("kind", ["sgd", "adamw", "muon"])
def test_loaded_state_is_a_copy(kind):
    def run(optimizers, model, seed):
        torch.manual_seed(seed)
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        optimizers.step(1.0)

    first = small()
    a = Optimizers(first, kind, 0.1, 0.9, 0.1)
    run(a, first, 1)
    weights = {name: value.clone() for name, value in first.state_dict().items()}
    ends = []
    saved = a.state_dict()
    for _ in range(2):  # a second load of the same state finds it as it was saved
        model = small()
        model.load_state_dict(weights)
        b = Optimizers(model, kind, 0.1, 0.9, 0.1)
        b.load_state_dict(saved)
        run(b, model, 2)
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    run(a, first, 2)
    ends.append(torch.cat([p.detach().flatten() for p in first.parameters()]))
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2])


LAYERS = [[4, 0], [1, 2, 3], [5]]


class Apart(nn.Module):
    """A body, and a head for each task as layers of their own, with the weights of one layer for all."""

    def __init__(self, whole):
        super().__init__()
        self.body = copy.deepcopy(whole.body)
        self.heads = nn.ModuleList(nn.Linear(6, len(rows)) for rows in LAYERS)
        with torch.no_grad():
            for layer, rows in zip(self.heads, LAYERS, strict=True):
                layer.weight.copy_(whole.head.weight[rows])
                layer.bias.copy_(whole.head.bias[rows])


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 6)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(("kind", "momentum"), [("sgd", 0.0), ("sgd", 0.9), ("adamw", 0.9)])
def test_rows_of_a_head_are_layers_of_their_own(kind, momentum, decay):
    """Against layers that really are, stepped by torch's own optimizers, which skip what has no gradient."""
    torch.manual_seed(0)
    ours = Whole()
    theirs = Apart(ours)
    optimizers = Optimizers(ours, kind, 0.05, momentum, decay, LAYERS)
    split = [
        {"params": [p for p in theirs.parameters() if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in theirs.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    reference = (
        torch.optim.SGD(split, 0.05, momentum, nesterov=momentum > 0)
        if kind == "sgd"
        else torch.optim.AdamW(split, 0.05, (momentum, 0.999))
    )
    for task in [0] * 4 + [1] * 5 + [2] * 3 + [0] * 2:
        optimizers.train([task])
        x, labels = torch.randn(8, 4), torch.randint(len(LAYERS[task]), (8,))
        logits = ours.head(ours.body(x)).index_select(1, torch.tensor(LAYERS[task]))
        F.cross_entropy(logits, labels).backward()
        F.cross_entropy(theirs.heads[task](theirs.body(x)), labels).backward()
        optimizers.step(1.0)
        reference.step()
        reference.zero_grad()
        assert all(p.grad is None for p in ours.parameters())
    for layer, rows in zip(theirs.heads, LAYERS, strict=True):
        torch.testing.assert_close(ours.head.weight[rows], layer.weight)
        torch.testing.assert_close(ours.head.bias[rows], layer.bias)
    torch.testing.assert_close(ours.body.weight, theirs.body.weight)


@pytest.mark.parametrize("kind", ["sgd", "adamw", "muon"])
def test_all_layers_at_once_are_one(kind):
    """And a checkpoint between two steps changes nothing."""
    ends = []
    for layers in ((), LAYERS):
        torch.manual_seed(0)
        model = Whole()
        optimizers = Optimizers(model, kind, 0.05, 0.9, 0.1, layers)
        for step in range(6):
            F.cross_entropy(model.head(model.body(torch.randn(8, 4))), torch.randint(6, (8,))).backward()
            optimizers.step(1 - step / 6)
            if step == 2:
                saved = optimizers.state_dict()
                optimizers = Optimizers(model, kind, 0.05, 0.9, 0.1, layers)
                optimizers.load_state_dict(saved)
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["sgd", "adamw", "muon"])
def test_what_has_lost_its_momentum_stays_without_a_gradient(kind):
    torch.manual_seed(0)
    model = Whole()
    optimizers = Optimizers(model, kind, 0.05, 0.9, 0.0)
    moving = torch.ones(6, 4)
    moving[2:] = 0.0
    for stilled in (False, True):
        model.body.weight.grad = torch.randn(6, 4)
        optimizers.step(1.0)
        if stilled:
            optimizers.still(model.body.weight, moving)
        before = model.body.weight.detach().clone()
        model.body.weight.grad = torch.zeros(6, 4)
        optimizers.step(1.0)
        moved = (model.body.weight != before).all(1)
        assert moved[:2].all() and moved[2:].all() != stilled


@pytest.mark.parametrize(
    ("schedule", "warmup", "points"),
    [
        ("onecycle", 0.25, {0: 0, 0.125: 0.5, 0.25: 1, 0.625: 0.5, 1: 0}),
        ("onecycle", 0.0, {0: 1, 0.5: 0.5, 1: 0}),
        ("cosine", 0.0, {0: 1, 0.25: (1 + math.sqrt(0.5)) / 2, 0.5: 0.5, 1: 0}),
        ("cosine", 0.5, {0: 0, 0.25: 0.5, 0.5: 1, 0.75: 0.5, 1: 0}),
        ("constant", 0.0, {0: 1, 0.3: 1, 1: 1}),
        ("constant", 0.5, {0: 0, 0.25: 0.5, 0.5: 1, 1: 1}),
    ],
)
def test_schedules(schedule, warmup, points):
    for progress, rate in points.items():
        assert relative_rate(schedule, progress, warmup) == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize("kind", ["sgd", "adamw", "muon"])
def test_what_has_forgotten_goes_on_as_if_it_were_new(kind):
    first, second = (build("mlp", {"units": 4}, (1, 2, 2), 3, torch.zeros(1), torch.ones(1)) for _ in range(2))
    old, new = (Optimizers(each, kind, 0.1, 0.9, 0.01) for each in (first, second))

    def step(model, optimizers):
        model(torch.ones(2, 1, 2, 2)).square().sum().backward()
        optimizers.step(1.0)

    for _ in range(3):
        step(first, old)
    second.load_state_dict(first.state_dict())
    old.restart()
    for _ in range(2):
        step(first, old)
        step(second, new)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
