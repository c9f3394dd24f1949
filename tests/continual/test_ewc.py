"""Elastic weight consolidation: its Fisher information against brute force, its penalty against the sum over tasks."""

import pytest
import torch
from torch import nn

from engram.backbone.nets.making import adapt, build
from engram.continual.regularisation import importance as module
from engram.continual.regularisation.ewc import images_of
from engram.continual.regularisation.importance import by_layer, importance, one_by_one
from engram.continual.strategy import total_bytes


def classifier(backbone, options=None, adapter=None, adapter_options=None, in_shape=(1, 8, 8)):
    torch.manual_seed(0)
    model = build(backbone, options or {}, in_shape, 4, torch.zeros(in_shape[0]), torch.ones(in_shape[0]))
    if adapter:
        model.backbone = adapt(model.backbone, adapter, adapter_options or {})
    return model.eval()


def images(count=12, in_shape=(1, 8, 8)):
    random = torch.Generator().manual_seed(1)
    return 3 * torch.randn(count, *in_shape, generator=random), torch.randint(4, (count,), generator=random)


def exact(logits, labels):
    chances = logits.log_softmax(1).T
    return chances, chances.detach().exp()


def brute_force(model, x, shape, values, weights):
    """The definition: a graph of its own for every image and value."""
    total = [torch.zeros_like(p) for p in model.parameters()]
    for image in x:
        for v in range(4):
            logits = model.forward_normalised(image[None])[0]
            found = torch.autograd.grad(values(logits, v), list(model.parameters()), allow_unused=True)
            weight = weights(logits, v).detach()
            for t, g in zip(total, found, strict=True):
                if g is not None:
                    t += weight * (g**2 if shape == "square" else g.abs())
    return [t / len(x) for t in total]


def agree(found, expected, rtol=1e-4):
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=rtol, atol=1e-5 * float(b.abs().max())), (a - b).abs().max()


NETWORKS = {
    "mlp": ("mlp", {"width": 0.1}),
    "mlp-layernorm": ("mlp", {"width": 0.1, "normalisation": "group"}),
    "mlp-batchnorm": ("mlp", {"width": 0.1, "normalisation": "batch"}),
    "lenet5": ("lenet5", {}),
    "vgg-small": ("vgg-small", {"width": 0.1, "depth": 1}),
    "vgg-small-strided-group": ("vgg-small", {"width": 0.1, "depth": 1, "normalisation": "group", "pooling": "stride"}),
    "spiking": ("mlp", {"width": 0.1}, "snn.spiking", {"steps": 5}),
    "spiking-lenet5": ("lenet5", {}, "snn.spiking", {"steps": 8}),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", ["square", "absolute"])
def test_the_fast_way_is_the_definition(name, shape, monkeypatch):
    in_shape = (1, 8, 8) if "mlp" in name or name == "spiking" else (1, 28, 28)
    model = classifier(*NETWORKS[name], in_shape=in_shape)
    x, labels = images(5, in_shape)
    x = 10 * x if "spiking" in name else x  # or the last layers never fire
    used = []
    monkeypatch.setattr(module, "by_layer", lambda *args: used.append(len(args[1])) or by_layer(*args))
    found = importance(model, [(x[:3], labels[:3]), (x[3:], labels[3:])], exact, shape)
    expected = brute_force(model, x, shape, lambda z, v: z.log_softmax(0)[v], lambda z, v: z.softmax(0)[v])
    agree(found, expected, 1e-3)
    assert sum(bool(each.any()) for each in expected) >= 6
    assert used == [3, 3, 2]  # the check on the first images, then each batch


def test_layers_that_see_an_image_several_times():
    """The frames of a recording, folded into the batch, and a layer that is called again."""

    class Again(nn.Module):
        feature_dim = 64

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 64)

        def forward(self, x):
            return self.linear(self.linear(x.flatten(1)).relu()).relu_()

    frames, labels = images(6, (3, 1, 8, 8))
    again = classifier("mlp")
    again.backbone, again.head = Again(), nn.Linear(64, 4)
    large = nn.functional.interpolate(frames.flatten(0, 1), (28, 28)).unflatten(0, frames.shape[:2])
    for model, x in ((classifier("lenet5", in_shape=(1, 28, 28)), large), (again, frames[:, 0])):
        expected = brute_force(model, x, "square", lambda z, v: z.log_softmax(0)[v], lambda z, v: z.softmax(0)[v])
        way = module._way(model, x[:4], labels[:4], exact, "square")
        assert way is not one_by_one
        agree(importance(model, [(x, labels)], exact, "square"), expected, 1e-3)


def test_a_network_without_formulas_takes_the_plain_loop():
    class Scaled(nn.Module):
        feature_dim = 6

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(64))
            self.linear = nn.Linear(64, 6)

        def forward(self, x):
            return self.linear(x.flatten(1) * self.scale).relu()

    class Crossed(Scaled):
        """Only looks like a network of layers with formulas: it uses a layer's weight behind its back."""

        def __init__(self):
            super().__init__()
            del self.scale

        def forward(self, x):
            return self.linear(x.flatten(1)).relu() + nn.functional.linear(x.flatten(1), self.linear.weight)

    for net in (Scaled, Crossed):
        model = classifier("mlp")
        torch.manual_seed(0)
        model.backbone, model.head = net(), nn.Linear(6, 4)
        x, labels = images()
        expected = brute_force(model, x, "square", lambda z, v: z.log_softmax(0)[v], lambda z, v: z.softmax(0)[v])
        agree(importance(model, [(x, labels)], exact, "square"), expected)
        agree([each / len(x) for each in one_by_one(model, x, labels, exact, "square")], expected)


@pytest.mark.parametrize("kind", ["exact", "sampled", "empirical"])
@pytest.mark.parametrize("scenario", ["task", "class"])
def test_the_size_of_batches_does_not_matter(experiment, monkeypatch, kind, scenario):
    """The square of a batch's mean gradient would be smaller by orders of magnitude for large batches."""
    ours = experiment("ewc", scenario=scenario, epochs=1, strategies_options={"ewc.fisher": kind, "ewc.samples": 40})
    state = ours.start()
    task = state.stream.task(0)
    found = []
    for size in (1, 7, 256):
        monkeypatch.setattr("engram.continual.regularisation.ewc.BATCH", size)
        found.append(state.strategies[0].fisher(state.learner, task))
    agree(found[0], found[2])
    agree(found[1], found[2])


@pytest.mark.parametrize("scenario", ["task", "class"])
def test_labels_are_those_the_head_offers(experiment, scenario):
    """Against the definition, over the outputs of the task or over all of them."""
    ours = experiment("ewc", scenario=scenario, epochs=1, strategies_options={"ewc.samples": 30})
    state = ours.start()
    task, model = state.stream.task(0), state.model
    found = state.strategies[0].fisher(state.learner, task)
    x = torch.cat([part for part, _ in images_of(state.learner, task, 30)])
    columns = list(task.outputs) if scenario == "task" else list(range(10))
    total = [torch.zeros_like(p) for p in model.parameters()]
    model.eval()
    for image in x:
        for v in range(len(columns)):
            logits = model.forward_normalised(image[None])[0, columns]
            grads = torch.autograd.grad(logits.log_softmax(0)[v], list(model.parameters()))
            for t, g in zip(total, grads, strict=True):
                t += logits.softmax(0)[v].detach() * g**2 / len(x)
    agree(found, total)


def test_images_are_drawn_by_the_seed_and_no_more_than_wanted(experiment):
    state = experiment("ewc").start()
    every = torch.cat([x for x, _ in images_of(state.learner, state.stream.task(0), None)])
    some = [torch.cat([x for x, _ in images_of(state.learner, state.stream.task(0), 30)]) for _ in range(2)]
    assert len(every) == len(state.stream.task(0).train)
    assert len(some[0]) == 30 and torch.equal(*some)
    assert not torch.equal(some[0], every[:30])


def test_sampled_labels_come_near_the_exact_expectation(experiment):
    state = {}
    for kind in ("exact", "sampled", "empirical"):
        ours = experiment("ewc", epochs=1, seed=3, strategies_options={"ewc.fisher": kind})
        at = ours.start()
        state[kind] = torch.cat([f.flatten() for f in at.strategies[0].fisher(at.learner, at.stream.task(0))])
    near = state["sampled"].sum() / state["exact"].sum()
    assert near == pytest.approx(1, abs=0.15)
    assert not torch.allclose(state["empirical"], state["sampled"], rtol=0.1)


def penalised(strategy, terms, factor):
    """Gradient the strategy adds at random weights, and that of the explicit sum over (F, anchor)."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in strategy.weights:
            p.copy_(0.1 * torch.randn(p.shape, generator=generator))
            p.grad = None
    strategy.after_backward(None, None)
    expected = [torch.zeros_like(p) for p in strategy.weights]
    for fisher, anchor in terms:
        expected = [
            e + factor * f * (p.detach() - a)
            for e, f, p, a in zip(expected, fisher, strategy.weights, anchor, strict=True)
        ]
    return [p.grad for p in strategy.weights], expected


@pytest.mark.parametrize("online", [False, True])
def test_memory_is_flat_and_the_penalty_is_the_sum_over_tasks(experiment, monkeypatch, online):
    gamma = 0.8
    options = {"ewc.strength": 20.0, "ewc.samples": 20, "ewc.online": online, "ewc.gamma": gamma}
    ours = experiment("ewc", scenario="task", tasks=5, epochs=1, strategies_options=options)
    state, terms, sizes, strategy = ours.start(), [], [], None
    seen = type(state.strategies[0]).fisher

    def spy(self, learner, task):
        found = seen(self, learner, task)
        terms.append(([f.clone() for f in found], [p.detach().clone() for p in self.weights]))
        sizes.append(total_bytes(self.state_dict()))
        return found

    monkeypatch.setattr(type(state.strategies[0]), "fisher", spy)
    while ours.step(state):
        pass
    strategy = state.strategies[0]
    assert len(terms) == 5 and len(set(sizes)) == 1
    if online:
        last = [torch.zeros_like(p) for p in strategy.weights]
        for fisher, _ in terms:
            last = [gamma * old + new for old, new in zip(last, fisher, strict=True)]
        terms = [([gamma * f for f in last], terms[-1][1])]
    agree(*penalised(strategy, terms, 20.0))


def test_without_strength_it_is_finetuning(learn):
    plain = learn("finetune", epochs=2)
    ours = learn("ewc", epochs=2, strategies_options={"ewc.strength": 0.0, "ewc.samples": 10})
    assert torch.equal(plain.weights(), ours.weights())
    assert str(plain.measured) == str(ours.measured)


def test_running_statistics_are_left_alone(experiment):
    ours = experiment("ewc", backbone_options={"width": 0.25, "normalisation": "batch"}, epochs=1)
    state = ours.start()
    before = {name: value.clone() for name, value in state.model.named_buffers()}
    state.model.train()
    state.strategies[0].fisher(state.learner, state.stream.task(0))
    assert state.model.training
    assert all(torch.equal(value, before[name]) for name, value in state.model.named_buffers())
    assert all(p.grad is None for p in state.model.parameters())


@pytest.mark.parametrize(
    "kind", ["exact", *(pytest.param(each, marks=pytest.mark.slow) for each in ("sampled", "empirical"))]
)
def test_forgets_less(learn, learned, kind):
    options = {"scenario": "permuted", "lr": 5e-3, "epochs": 10}
    plain = learned("finetune", **options)
    ours = learn("ewc", **options, strategies_options={"ewc.strength": 300.0, "ewc.fisher": kind, "ewc.samples": 300})
    assert ours.metrics["test/forgetting"] < plain.metrics["test/forgetting"] - 0.1
    assert ours.accuracy > plain.accuracy + 0.1


@pytest.mark.parametrize("online", [False, True])
def test_a_run_that_was_broken_off_ends_the_same(learn, resume, online):
    options = {"ewc.strength": 100.0, "ewc.samples": 30, "ewc.fisher": "sampled", "ewc.online": online}
    options = {"scenario": "task", "epochs": 2, "strategies_options": options}
    whole, broken = learn("ewc", **options), resume(45, "ewc", **options)
    assert torch.equal(whole.weights(), broken.weights())
    assert str(whole.result.tables) == str(broken.result.tables)


def test_spiking_networks_in_mixed_precision(learn):
    options = {"adapter": "snn.spiking", "adapter_options": {"steps": 2}, "precision": "bf16", "epochs": 1}
    plain = learn("finetune", **options)
    ours = learn("ewc", **options, strategies_options={"ewc.strength": 1e4, "ewc.samples": 50})
    assert ours.weights().isfinite().all()
    assert not torch.equal(plain.weights(), ours.weights())
