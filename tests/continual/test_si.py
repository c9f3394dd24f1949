"""Synaptic intelligence: its sums against the paper's equations, and what it does to a stream."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from engram.continual.regularisation.options import SIOptions
from engram.continual.regularisation.si import SI


class Rig:
    """A network of two parameters and more under one strategy, stepped as the training loop does it."""

    def __init__(self, model, optimizer, clip=0.0, others=(), **options):
        self.model, self.optimizer, self.clip = model, optimizer, clip
        self.si = SI(SIOptions(**{"c": 0.1, **options}), None, model)
        self.learner = SimpleNamespace(strategies=(self.si, *others), options=SimpleNamespace(clip=clip))
        self.si.before_task(self.learner, None)

    def step(self, loss):
        """-> gradients of the loss, of the whole, and the change of every weight."""
        self.optimizer.zero_grad(set_to_none=True)
        loss(self.model).backward()
        before = [p.detach().clone() for p in self.model.parameters()]
        alone = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.model.parameters()]
        self.si.after_backward(self.learner, None)
        whole = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.model.parameters()]
        if self.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.si.after_step(self.learner, None)
        return alone, whole, [p.detach() - b for p, b in zip(self.model.parameters(), before, strict=True)]

    def end(self):
        self.si.after_task(self.learner, None)
        self.si.before_task(self.learner, None)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def batches(seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(12):
        x = torch.randn(8, 6, generator=generator).double()
        y = torch.randint(3, (8,), generator=generator)
        yield lambda model, x=x, y=y: nn.functional.cross_entropy(model(x), y)


OPTIMIZERS = {
    "adam": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, 0.1, 0.9, nesterov=True, weight_decay=0.01, fused=True),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("gradient", ["task", "total"])
@pytest.mark.parametrize("relu", [True, False])
def test_sums_and_penalty_are_those_of_the_paper(optimizer, clip, gradient, relu):
    """Over two tasks; momentum, decay and clipping belong to the step taken, and not to the gradient."""
    model, c, xi = network(), 0.7, 0.01
    rig = Rig(model, OPTIMIZERS[optimizer](model.parameters()), clip, c=c, xi=xi, gradient=gradient, relu=relu)
    weights = list(model.parameters())
    big = [torch.zeros_like(p) for p in weights]
    for task in range(3):
        start = [p.detach().clone() for p in weights]
        small = [torch.zeros_like(p) for p in weights]
        for loss in batches(task):
            here = [p.detach().clone().requires_grad_() for p in weights]
            penalty = sum((c * o * (p - s) ** 2).sum() for o, p, s in zip(big, here, start, strict=True))
            pulls = torch.autograd.grad(penalty, here)
            alone, whole, moved = rig.step(loss)
            for g, w, pull in zip(alone, whole, pulls, strict=True):
                assert torch.allclose(w, g + pull, rtol=1e-10, atol=1e-14)
            chosen = whole if gradient == "total" else alone
            small = [s - g * m for s, g, m in zip(small, chosen, moved, strict=True)]
        for s, mine in zip(small, rig.si.contributions, strict=True):
            assert torch.allclose(s, mine, rtol=1e-8, atol=1e-14)
        big = [o + s / ((p - a) ** 2 + xi) for o, s, p, a in zip(big, small, weights, start, strict=True)]
        big = [o.detach().clamp(min=0) if relu else o.detach() for o in big]
        rig.end()
        for o, mine in zip(big, rig.si.importances, strict=True):
            assert torch.allclose(o, mine, rtol=1e-8, atol=1e-12)
    assert any(bool((o > 0).any()) for o in big)


def test_contributions_of_small_steps_add_up_to_the_fall_of_the_loss():
    """On a quadratic bowl: the path integral of a gradient is the difference of its potential."""
    model = nn.Linear(4, 1, bias=False).double()
    curvature, target = torch.tensor([1.0, 2.0, 5.0, 0.5]), torch.tensor([1.0, -2.0, 0.3, 0.0])

    def loss(model):
        return (curvature * (model.weight - target) ** 2).sum() / 2

    rig = Rig(model, torch.optim.SGD(model.parameters(), 1e-4))
    first = loss(model).item()
    for _ in range(600):
        rig.step(loss)
    fallen = first - loss(model).item()
    assert rig.si.contributions[0].sum().item() == pytest.approx(fallen, rel=1e-3)
    each = curvature / 2 * ((rig.si.anchors[0] - target) ** 2 - (model.weight.detach() - target) ** 2)
    assert torch.allclose(rig.si.contributions[0], each, rtol=1e-3, atol=1e-6)


def test_relu_holds_for_the_sum_over_tasks():
    """Contributions are negative where the loss rose: they take away from what earlier tasks left, down to nothing."""
    found = {}
    for relu in (True, False):
        model = nn.Linear(1, 1, bias=False).double()
        nn.init.ones_(model.weight)
        rig = Rig(model, torch.optim.SGD(model.parameters(), 0.1), c=0.0, relu=relu)
        found[relu] = []
        for rising in (False, True, True):
            rig.optimizer.param_groups[0]["maximize"] = rising
            rig.step(lambda model: model.weight.sum() ** 2)
            rig.end()
            found[relu].append(rig.si.importances[0].item())
    assert found[True][1] == found[False][1] < found[True][0]
    assert found[False][2] < 0 == found[True][2]


def test_what_is_remembered_shares_no_memory_with_the_weights():
    """On a CPU a detached weight is a view: an anchor that follows the weights makes the whole method do nothing."""
    model = network()
    rig = Rig(model, torch.optim.SGD(model.parameters(), 0.1))
    for task in range(2):
        for loss in batches(task):
            rig.step(loss)
        rig.end()
        held = [*rig.si.anchors, *rig.si.contributions, *rig.si.importances, *(rig.si.pull or [])]
        places = {p.data_ptr() for p in model.parameters()}
        assert not places & {each.data_ptr() for each in held}
    assert all(torch.equal(p, a) for p, a in zip(model.parameters(), rig.si.anchors, strict=True))  # a task has ended
    rig.step(next(batches(5)))
    assert all(not torch.equal(p, a) for p, a in zip(model.parameters(), rig.si.anchors, strict=True))


def test_importances_are_not_cut_off_from_above():
    """A ceiling of 0.001 turns most weights' importances into one constant, and the method into an L2 penalty."""
    model = network()
    rig = Rig(model, OPTIMIZERS["adam"](model.parameters()), xi=1e-3)
    for loss in batches(0):
        rig.step(loss)
    rig.end()
    found = torch.cat([o.flatten() for o in rig.si.importances])
    assert found.max() > 0.01
    assert found[found > 0].unique().numel() == (found > 0).sum()


def test_a_weight_without_gradient_is_left_alone_until_it_is_needed():
    """An output layer of another task has no gradient; once important and moved, it is pulled back all the same."""
    model = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)]).double()
    rig = Rig(model, torch.optim.SGD(model.parameters(), 0.1), c=1.0)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double()
    for _ in range(5):
        rig.step(lambda model: model[0](x).square().sum())
    assert all(bool((each == 0).all()) for each in rig.si.contributions[2:])
    rig.end()
    with torch.no_grad():
        model[0].weight.add_(1.0)
    rig.si.before_task(rig.learner, None)
    rig.step(lambda model: model[1](x).square().sum())
    assert (model[0].weight < rig.si.anchors[0] + 1).all()


def test_another_strategy_may_change_gradients_and_weights_in_place():
    """What comes after in the same step does not reach the gradient that is remembered, nor the start of the step."""
    model = nn.Linear(3, 2).double()
    rig = Rig(model, torch.optim.SGD(model.parameters(), 0.1), others=(None,))
    x = torch.ones(4, 3).double()
    for turn in range(2):
        before = [each.clone() for each in rig.si.contributions]
        start = [p.detach().clone() for p in model.parameters()]
        model(x).square().sum().backward()
        gradients = [p.grad.clone() for p in model.parameters()]
        rig.si.after_backward(rig.learner, None)
        for p in model.parameters():
            p.grad.mul_(0.5)
        rig.optimizer.step()
        rig.optimizer.zero_grad()
        rig.si.after_step(rig.learner, None)
        for i, p in enumerate(model.parameters()):
            expected = before[i] - gradients[i] * (p.detach() - start[i])
            assert torch.allclose(rig.si.contributions[i], expected, rtol=1e-10), turn
        with torch.no_grad():
            model.weight.mul_(0.9)  # as one that prunes does, between steps


def test_without_strength_it_is_finetuning(learn):
    plain, ours = learn("finetune", epochs=2), learn("si", epochs=2, strategies_options={"si.c": 0.0})
    assert torch.equal(plain.weights(), ours.weights())
    assert str(plain.measured) == str(ours.measured)


def test_forgets_less(learn, learned):
    options = {"scenario": "permuted", "lr": 5e-3, "epochs": 10}
    plain = learned("finetune", **options)
    ours = learn("si", **options, strategies_options={"si.c": 0.5})
    assert ours.metrics["test/forgetting"] < plain.metrics["test/forgetting"] - 0.1
    assert ours.accuracy > plain.accuracy + 0.1


@pytest.mark.parametrize("strategies", [("si",), ("si", "ewc")])
def test_a_run_that_was_broken_off_ends_the_same(learn, resume, strategies):
    options = {"scenario": "task", "epochs": 2, "strategies_options": {"si.c": 10.0, "si.gradient": "total"}}
    whole, broken = learn(*strategies, **options), resume(45, *strategies, **options)
    assert torch.equal(whole.weights(), broken.weights())
    assert str(whole.result.tables) == str(broken.result.tables)
    for a, b in zip(whole.strategies[0].importances, broken.strategies[0].importances, strict=True):
        assert torch.equal(a, b)


def test_spiking_networks_in_mixed_precision(learn):
    options = {"adapter": "snn.spiking", "adapter_options": {"steps": 2}, "precision": "bf16", "epochs": 1}
    plain = learn("finetune", **options)
    ours = learn("si", **options, strategies_options={"si.c": 100.0})
    assert ours.weights().isfinite().all()
    assert not torch.equal(plain.weights(), ours.weights())
    assert any(bool((o > 0).any()) for o in ours.strategies[0].importances)
