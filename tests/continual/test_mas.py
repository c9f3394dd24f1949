"""Memory aware synapses: sensitivities against the definition, and what they do to a stream."""

import pytest
import torch

from engram.continual.regularisation.ewc import images_of


@pytest.mark.parametrize("scenario", ["task", "class"])
def test_sensitivity_is_the_mean_over_images_of_absolute_gradients(experiment, scenario):
    """Not the absolute value of a batch's gradient, in which images would cancel."""
    ours = experiment("mas", scenario=scenario, epochs=1, strategies_options={"mas.samples": 40})
    state = ours.start()
    task, model = state.stream.task(0), state.model
    found = state.strategies[0].sensitivity(state.learner, task)
    x = torch.cat([part for part, _ in images_of(state.learner, task, 40)])
    columns = list(task.outputs) if scenario == "task" else list(range(10))
    weights, total = list(model.parameters()), [torch.zeros_like(p) for p in model.parameters()]
    model.eval()
    for image in x:
        length = model.forward_normalised(image[None])[0, columns].pow(2).sum()
        for t, g in zip(total, torch.autograd.grad(length, weights), strict=True):
            t += g.abs() / len(x)
    for a, b in zip(found, total, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def test_sensitivity_of_one_linear_layer_in_closed_form(experiment):
    """f = W x: d ||f||^2 / dW = 2 f x^T."""
    ours = experiment("mas", epochs=1, strategies_options={"mas.samples": 25})
    state = ours.start()
    model = state.model
    model.backbone = torch.nn.Flatten()
    model.head = torch.nn.Linear(64, 10, bias=False)
    (found,) = state.strategies[0].sensitivity(state.learner, state.stream.task(0))
    x = torch.cat([part for part, _ in images_of(state.learner, state.stream.task(0), 25)]).flatten(1)
    expected = (2 * (x @ model.head.weight.T)[:, :, None] * x[:, None]).abs().mean(0)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_importances_add_up_over_tasks_around_the_newest_weights(experiment, monkeypatch):
    ours = experiment("mas", scenario="task", epochs=1, strategies_options={"mas.samples": 20, "mas.strength": 0.5})
    state, parts = ours.start(), []
    strategy = state.strategies[0]
    sensitivity = type(strategy).sensitivity
    monkeypatch.setattr(
        type(strategy), "sensitivity", lambda *args: parts.append(sensitivity(*args)) or [p.clone() for p in parts[-1]]
    )
    while ours.step(state):
        pass
    newest = [p.detach().clone() for p in strategy.weights]
    for i, held in enumerate(strategy.importances):
        assert torch.allclose(held, sum(part[i] for part in parts))
    with torch.no_grad():
        for p in strategy.weights:
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
            p.grad = None
    strategy.after_backward(None, None)
    here = [p.detach().clone().requires_grad_() for p in strategy.weights]
    penalty = sum(
        0.5 * (omega * (p - a) ** 2).sum() for omega, p, a in zip(strategy.importances, here, newest, strict=True)
    )
    for p, expected in zip(strategy.weights, torch.autograd.grad(penalty, here), strict=True):
        assert torch.allclose(p.grad, expected, rtol=1e-5, atol=1e-7)


def test_without_strength_it_is_finetuning(learn):
    plain = learn("finetune", epochs=2)
    ours = learn("mas", epochs=2, strategies_options={"mas.strength": 0.0, "mas.samples": 10})
    assert torch.equal(plain.weights(), ours.weights())
    assert str(plain.measured) == str(ours.measured)


def test_forgets_less(learn, learned):
    options = {"scenario": "permuted", "lr": 5e-3, "epochs": 10}
    plain = learned("finetune", **options)
    ours = learn("mas", **options, strategies_options={"mas.strength": 0.001, "mas.samples": 300})
    assert ours.metrics["test/forgetting"] < plain.metrics["test/forgetting"] - 0.1
    assert ours.accuracy > plain.accuracy + 0.1


def test_a_run_that_was_broken_off_ends_the_same(learn, resume):
    options = {"scenario": "task", "epochs": 2, "strategies_options": {"mas.samples": 30}}
    whole, broken = learn("mas", **options), resume(45, "mas", **options)
    assert torch.equal(whole.weights(), broken.weights())
    assert str(whole.result.tables) == str(broken.result.tables)


def test_spiking_networks_in_mixed_precision(learn):
    options = {"adapter": "snn.spiking", "adapter_options": {"steps": 2}, "precision": "bf16", "epochs": 1}
    plain = learn("finetune", **options)
    ours = learn("mas", **options, strategies_options={"mas.strength": 10.0, "mas.samples": 50})
    assert ours.weights().isfinite().all()
    assert not torch.equal(plain.weights(), ours.weights())
