"""Hard attention: its equations by brute force, and earlier tasks that stay what they were."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engram.backbone.nets.making import adapt, build
from engram.continual.isolation.gates import gates_of
from engram.continual.isolation.hat import HAT, annealed, compensated
from engram.continual.isolation.options import HATOptions
from engram.continual.isolation.reach import Reach, reaches, tried

DIGITS = {"scenario": "task", "lr": 5e-3, "epochs": 4, "backbone_options": {"width": 0.5}}
OPTIMIZERS = {
    "adamw": {"weight_decay": 0.1},
    "sgd": {"optimizer": "sgd", "lr": 0.02, "momentum": 0.9, "weight_decay": 0.01},
}
NETS = [("mlp", {"width": 0.5}), ("mlp", {"width": 0.5, "normalisation": "group"}), ("lenet5", {}),
        ("vgg-tiny", {"width": 0.5}), ("resnet-tiny", {"width": 0.5, "pooling": "max"})]  # fmt: skip


def model(name, adapter=None, **options) -> Any:
    torch.manual_seed(0)
    made = build(name, options, (1, 8, 8), 5, torch.zeros(1), torch.ones(1))
    if adapter is not None:
        made.backbone = adapt(made.backbone, adapter, {"steps": 2} if adapter == "snn.spiking" else {})
    return made


@pytest.mark.parametrize(  # both optimizers, and every network with one of them
    ("backbone", "options", "optimizer"),
    [(*NETS[0], "adamw"), *((*net, ("sgd", "adamw")[at % 2]) for at, net in enumerate(NETS))],
)
def test_earlier_tasks_keep_their_accuracy_and_their_logits(experiment, backbone, options, optimizer):
    settings = {**DIGITS, **OPTIMIZERS[optimizer], "backbone": backbone, "backbone_options": options, "epochs": 3}
    ours = experiment("hat", **settings, seed=1)  # with seed 0 a task ends with one gate of vgg-tiny half open
    state, learned, going = ours.start(), [], True

    def logits(task):
        with torch.no_grad():
            state.learner.enter(task)
            found = state.model.eval()(state.stream.task(task).test.images)[:, list(state.stream.outputs[task])]
            state.learner.enter(state.learner.task)
        return found

    while going:
        going = ours.step(state)
        if state.learner.done:
            learned.append(logits(state.learner.task))
    for task, then in enumerate(learned):
        assert (logits(task) - then).abs().max() < 0.1 * then.std()
    assert ours.finish(state).metrics["test/forgetting"] < 0.01


@pytest.mark.slow
def test_it_keeps_what_finetuning_forgets_and_takes_units_as_it_needs_them(learn):
    settings = {**DIGITS, "scenario": "permuted", "head": "multi", "epochs": 5, "backbone_options": {"width": 0.25}}
    plain, kept = learn("finetune", **settings), learn("hat", **settings)
    assert kept.metrics["test/forgetting"] < 0.01 < plain.metrics["test/forgetting"] - 0.05
    assert kept.accuracy > plain.accuracy + 0.03
    used = [row["all"] for row in kept.result.tables["hat"]]
    assert 0.05 < used[0] < used[1] < used[2] < 0.95
    eager = learn("hat", strategies_options={"hat.c": 0.0}, **settings)
    assert eager.result.tables["hat"][-1]["all"] > used[2] + 0.1


def rig(s_max=50.0, c=0.75, lr=0.05) -> tuple[Any, Any, Any]:
    """A two-layer network under HAT in its second task, the first having used some of the units."""
    net = model("mlp", width=0.03, depth=2)
    setting: Any = SimpleNamespace(seed=0, device="cpu", tasks=2, frames=None)
    hat = HAT(HATOptions(s_max=s_max, c=c, lr=lr), setting, net)
    head = SimpleNamespace(table=torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 1, 0]]).bool())
    learner = SimpleNamespace(task=1, head=head, total_steps=9, steps_per_epoch=9, step=4)
    hat.used = [torch.rand(len(used)) for used in hat.used]
    hat.used[0][:2], hat.used[0][2:4] = 0.0, 1.0
    hat.learned = 1
    return net, hat, learner


def test_steps_are_scaled_by_the_gates_on_both_sides():
    net, hat, learner = rig()
    first, second = (m for m in net.backbone.modules() if isinstance(m, nn.Linear))
    old = [p.detach().clone() for p in net.parameters()]
    hat.before_forward(learner, None)
    net(torch.rand(4, 1, 8, 8)).logsumexp(1).sum().backward()
    hat.after_backward(learner, None)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1.0)
    hat.after_step(learner, None)
    a, b = hat.used
    moved = [p.detach() - o for p, o in zip(net.parameters(), old, strict=True)]
    (w1, b1, w2, b2, wh, bh) = moved
    for i in range(len(a)):
        torch.testing.assert_close(w1[i], torch.full_like(w1[i], 1 - min(a[i], 1.0)), atol=1e-5, rtol=0)
        torch.testing.assert_close(b1[i], 1 - a[i], atol=1e-5, rtol=0)
    for i in range(len(b)):
        torch.testing.assert_close(b2[i], 1 - b[i], atol=1e-5, rtol=0)
        for j in range(len(a)):
            torch.testing.assert_close(w2[i, j], 1 - min(b[i], a[j]), atol=1e-5, rtol=0)
    mine = learner.head.table[1]
    torch.testing.assert_close(wh, mine.float()[:, None].expand_as(wh), atol=1e-5, rtol=0)
    assert torch.equal(first.weight[2:4], old[0][2:4]) and torch.equal(net.head.bias[~mine], old[5][~mine])
    assert not torch.equal(second.weight, old[2]) and bool((bh[mine] != 0).all())


def test_embeddings_follow_the_compensated_gradient_of_the_whole_loss():
    net, hat, learner = rig()
    images, labels, s_max = torch.rand(8, 1, 8, 8), torch.tensor([2, 3] * 4), 50.0
    before = [e.clone() for e in hat.embeddings]
    hat.before_forward(learner, None)
    F.cross_entropy(net(images), labels).backward()
    hat.after_backward(learner, None)
    scale = 1 / s_max + (s_max - 1 / s_max) * 4 / 8
    leaves: list[Any] = [e[1].clone().requires_grad_() for e in before]
    linears = [m for m in net.backbone.modules() if isinstance(m, nn.Linear)]
    gates = [(scale * e).sigmoid() for e in leaves]
    x = images.flatten(1)
    for layer, gate in zip(linears, gates, strict=True):
        x = layer(x).relu() * gate
    left = [1 - used for used in hat.used]
    penalty = sum((a * f).sum() for a, f in zip(gates, left, strict=True)) / sum(f.sum() for f in left)
    (F.cross_entropy(net.head(x), labels) + 0.75 * penalty).backward()
    for e, leaf, old in zip(hat.embeddings, leaves, before, strict=True):
        cosh = (scale * leaf.detach().double()).clamp(-50, 50).cosh()
        factor = s_max / scale * (cosh + 1) / (leaf.detach().double().cosh() + 1)
        expected = (old[1].double() - 0.05 * factor * leaf.grad.double()).clamp(-6, 6)
        small = (scale * leaf.detach()).abs() < 12  # beyond, a sigmoid in single precision has no gradient left
        assert small.any()
        torch.testing.assert_close(e[1][small].double(), expected[small], atol=1e-3, rtol=1e-2)
        assert torch.equal(e[0], old[0])


def test_the_compensation_is_that_of_the_paper_where_gradients_vanish_too():
    e = torch.linspace(-6, 6, 25, dtype=torch.double, requires_grad=True)
    for scale in (0.01, 1.0, 20.0):
        (gradient,) = torch.autograd.grad((scale * e).sigmoid().sum(), e)
        cosh = (scale * e).clamp(-50, 50).cosh()
        paper = 400 / scale * (cosh + 1) / (e.cosh() + 1) * gradient
        alive = (scale * e).abs() < 30
        ours = compensated(e.detach(), torch.ones(25, dtype=torch.double), scale, 400.0)
        torch.testing.assert_close(ours[alive], paper.detach()[alive], rtol=1e-3, atol=0)
    assert compensated(torch.tensor([6.0]), torch.ones(1), 400.0, 400.0) == 0


def test_the_scale_rises_in_every_epoch_and_ends_at_its_largest():
    assert [annealed(step, 1, 9, 8.0) for step in range(1)] == [8.0]
    for total, epoch in ((20, 7), (2000, 93), (5, 9)):
        scales = [annealed(step, total, epoch, 8.0) for step in range(total)]
        assert scales[0] == 1 / 8 and scales[-1] == 8.0 and min(scales) == 1 / 8
        assert scales.count(8.0) == scales.count(1 / 8) == max(1, round(total / epoch))


CASES = [
    ("mlp", None, {}), ("mlp", None, {"normalisation": "batch"}), ("lenet5", None, {}), ("vgg-tiny", None, {}),
    ("vgg-tiny", None, {"pooling": "max"}), ("resnet-tiny", None, {}), ("resnet-tiny", None, {"pooling": "max"}),
    ("resnet-tiny", None, {"normalisation": "group"}), ("vgg-tiny", "snn.qcfs", {}), ("lenet5", "snn.spiking", {}),
    ("resnet-tiny", "snn.spiking", {}),
]  # fmt: skip


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize(("name", "adapter", "options"), CASES)
def test_what_may_move_does_nothing_where_gates_are_shut(name, adapter, options, traced):
    """Brute force: set free parameters to anything; the network with the gates of the task must not change."""
    net, images = model(name, adapter, **options).eval(), 4 * torch.rand(5, 1, 8, 8)
    gates = gates_of(net)
    for gate in gates.values():
        gate.values["test"] = (torch.rand(gate.channels) < 0.5).float()
    values = {layer: gate.values["test"] for layer, gate in gates.items()}
    found = (reaches if traced else tried)(net.backbone, gates, None)
    before, freed = net(images), 0
    for parameter, p in net.backbone.named_parameters():
        shut = (found[parameter].acts(p, gates, values) == 0).expand_as(p)
        freed += int(shut.sum())
        p.data[shut] = p.data[shut] * 3 + 1
    assert torch.equal(net(images), before)
    everything = sum(p.numel() for p in net.backbone.parameters())
    assert freed > 0.4 * everything or not traced  # of three quarters a task leaves alone
    seen = adapter is None and options.get("normalisation") != "group"  # else nothing fires, or norms mix channels
    assert freed > 0.2 * everything or not seen


class Branching(nn.Module):
    """A network that cannot be traced: what it does depends on its input."""

    in_shape = (1, 8, 8)

    def __init__(self):
        super().__init__()
        self.one, self.two, self.act, self.last = nn.Linear(64, 12), nn.Linear(12, 12), nn.ReLU(), nn.ReLU()

    def forward(self, x):
        x = self.act(self.one(x.flatten(1)))
        return self.last(self.two(self.two(x) if x.sum() > 0 else x))


def test_a_network_that_cannot_be_traced_is_guarded_on_the_side_of_its_outputs():
    net = nn.Module()
    net.backbone = Branching()
    gates = gates_of(net)
    gates["act"].values["earlier"] = torch.zeros(12)
    found = reaches(net.backbone, gates)
    assert list(gates["act"].values) == ["earlier"]
    assert found["one.weight"] == found["one.bias"] == Reach(frozenset({"act"}), None)
    assert found["two.weight"] == Reach(None, None)  # called twice, one time before no gate


@pytest.mark.parametrize(
    ("steps", "optimizer"),
    [(60, "adamw"), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((80, "sgd"), (100, "adamw")))],
)
def test_a_broken_off_run_goes_on_exactly(learned, resume, steps, optimizer):
    settings = {**DIGITS, **OPTIMIZERS[optimizer], "backbone": "vgg-tiny", "epochs": 3}
    whole, broken = learned("hat", **settings), resume(steps, "hat", **settings)
    assert torch.equal(whole.weights(), broken.weights())
    assert str(whole.result.tables) == str(broken.result.tables)


@pytest.mark.parametrize(
    "more",
    [
        {"adapter": "snn.spiking", "adapter_options": {"steps": 2}},
        {"adapter": "snn.spiking", "adapter_options": {"steps": 2, "neuron": "plif"}},  # one learned decay a layer
        {"precision": "bf16"},
    ],
)
def test_it_works_on_spikes_and_in_mixed_precision(learn, more):
    run = learn("hat", **{**DIGITS, **more})
    assert run.weights().isfinite().all() and run.metrics["test/forgetting"] < 0.01 and run.accuracy > 0.8
    assert math.isfinite(run.metrics["strategy_bytes"])
