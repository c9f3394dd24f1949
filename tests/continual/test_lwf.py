"""Learning without forgetting: the distillation against its formula, its teacher, and what it does to a stream."""

import pytest
import torch

from engram.backbone.contract import Batch, Outputs


def at_task(experiment, task, **options):
    """A stream whose learner stands at the beginning of a task, and a batch of it with the network's logits."""
    ours = experiment("lwf", **options)
    state = ours.start()
    while state.learner.task < task:
        assert ours.step(state, 0.0)
    learner = state.learner
    images, labels, _ = next(iter(learner.data.batches(torch.arange(16), 16, "cpu")))
    batch = Batch(images, learner.model.normalise(images), labels, torch.arange(16))
    batch.logits = learner.forward(batch.images)
    return state, learner, batch


def by_hand(new, old, columns_new, columns_old, tau, scale="temperature"):
    """-s mean sum_k q_k log p_k, q over the old columns and p over the new ones."""
    log_p = (new[:, columns_new] / tau).log_softmax(1)
    places = [columns_new.index(k) for k in columns_old]
    q = (old[:, columns_old] / tau).softmax(1)
    s = {"temperature": tau**2, "outputs": tau**2 / len(columns_new), "none": 1.0}[scale]
    return -s * (q * log_p[:, places]).sum(1).mean()


SCALES = ("temperature", "outputs", "none")


@pytest.mark.parametrize("strength", [None, 0.5])
@pytest.mark.parametrize("scale", SCALES)
def test_loss_with_a_head_for_each_task(experiment, strength, scale, tau=3.0):
    """Heads of 4, 3 and 3 outputs."""
    options = {"lwf.strength": strength, "lwf.temperature": tau, "lwf.scale": scale}
    state, learner, batch = at_task(experiment, 2, scenario="task", epochs=1, strategies_options=options)
    assert [len(outputs) for outputs in state.stream.outputs] == [4, 3, 3]
    strategy, plain = state.strategies[0], learner.trainer.objective(Outputs(batch.logits), batch, 0)
    old = strategy.teacher.forward_normalised(batch.images)
    heads = [list(outputs) for outputs in state.stream.outputs[:2]]
    each = [by_hand(batch.logits, old, head, head, tau, scale) for head in heads]
    found = strategy.loss(learner, batch, plain)
    if strength is None:
        expected = plain / 3 + (1 - 1 / 3) * (each[0] + each[1]) / 2
    else:
        expected = plain + strength * (each[0] + each[1])
    assert torch.allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(("scenario", "head"), [("class", "single"), ("class", "growing"), ("domain", "single")])
@pytest.mark.parametrize("scale", SCALES)
def test_loss_with_one_head(experiment, scenario, head, scale):
    """Targets over the outputs met before; the network chooses among all it is offered, so that new ones get none."""
    state, learner, batch = at_task(
        experiment, 2, scenario=scenario, head=head, epochs=1, strategies_options={"lwf.scale": scale}
    )
    strategy, plain = state.strategies[0], learner.trainer.objective(Outputs(batch.logits), batch, 0)
    old = strategy.teacher.forward_normalised(batch.images)
    met = sorted({k for outputs in state.stream.outputs[:2] for k in outputs})
    offered = sorted({*met, *state.stream.outputs[2]}) if head == "growing" else list(range(state.stream.width))
    expected = plain / 3 + (1 - 1 / 3) * by_hand(batch.logits, old, offered, met, 2.0, scale)
    assert torch.allclose(strategy.loss(learner, batch, plain), expected, rtol=1e-5)


def test_gradient_vanishes_where_nothing_has_changed(experiment):
    """A network that answers as its teacher does is at the minimum of the distillation."""
    options = {"lwf.strength": 1.0}
    state, learner, batch = at_task(experiment, 1, scenario="task", epochs=1, strategies_options=options)
    strategy = state.strategies[0]
    model = learner.model
    model.load_state_dict(strategy.teacher.state_dict())
    batch.logits = learner.forward(batch.images)
    strategy.loss(learner, batch, torch.zeros(())).backward()
    assert max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None) < 1e-6


def test_first_task_is_finetuning_and_the_teacher_is_what_it_left(experiment):
    weights = []
    for name in ("finetune", "lwf"):
        ours = experiment(name, epochs=1)
        state = ours.start()
        while not state.learner.done:
            ours.step(state)
        weights.append({key: value.clone() for key, value in state.model.state_dict().items()})
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    ours.step(state)  # of the second task
    teacher = state.strategies[0].teacher
    assert all(torch.equal(value, weights[1][name]) for name, value in teacher.state_dict().items())
    assert any(not torch.equal(value, weights[1][name]) for name, value in state.model.state_dict().items())


def test_the_teacher_keeps_its_running_statistics(experiment):
    options = {"width": 0.25, "normalisation": "batch"}
    state, learner, batch = at_task(experiment, 1, epochs=1, backbone_options=options)
    strategy = state.strategies[0]
    assert not any(module.training for module in strategy.teacher.modules())
    before = {name: value.clone() for name, value in strategy.teacher.state_dict().items()}
    first = strategy.teacher.forward_normalised(batch.images)
    learner.model.train()
    strategy.loss(learner, batch, learner.trainer.objective(Outputs(batch.logits), batch, 0)).backward()
    assert all(torch.equal(value, before[name]) for name, value in strategy.teacher.state_dict().items())
    assert torch.equal(first, strategy.teacher.forward_normalised(batch.images))
    assert all(p.grad is None for p in strategy.teacher.parameters())


def test_rows_of_a_buffer_are_not_distilled(experiment):
    state, learner, batch = at_task(experiment, 1, epochs=1)
    strategy = state.strategies[0]
    alone = strategy.loss(learner, batch, torch.zeros(()))
    extra = torch.randn(4, *batch.images.shape[1:])
    batch.images = torch.cat((batch.images, extra))
    batch.logits = learner.forward(batch.images)
    assert torch.allclose(strategy.loss(learner, batch, torch.zeros(())), alone)


def test_without_strength_it_is_finetuning(learn):
    plain, ours = learn("finetune", epochs=2), learn("lwf", epochs=2, strategies_options={"lwf.strength": 0.0})
    assert torch.equal(plain.weights(), ours.weights())
    assert str(plain.measured) == str(ours.measured)


def test_forgets_less(learn):
    options = {"scenario": "task", "lr": 5e-3, "epochs": 10}
    plain, ours = learn("finetune", **options), learn("lwf", **options)
    assert ours.metrics["test/forgetting"] < plain.metrics["test/forgetting"] - 0.05
    assert ours.accuracy > plain.accuracy + 0.05


@pytest.mark.parametrize("strategies", [("lwf",), ("lwf", "si")])
def test_a_run_that_was_broken_off_ends_the_same(learn, resume, strategies):
    options = {"scenario": "task", "epochs": 2, "backbone_options": {"width": 0.25, "normalisation": "batch"}}
    whole, broken = learn(*strategies, **options), resume(45, *strategies, **options)
    assert torch.equal(whole.weights(), broken.weights())
    assert str(whole.result.tables) == str(broken.result.tables)


def test_spiking_networks_in_mixed_precision(learn):
    options = {"adapter": "snn.spiking", "adapter_options": {"steps": 2}, "precision": "bf16", "epochs": 1}
    plain, ours = learn("finetune", **options), learn("lwf", **options)
    assert ours.weights().isfinite().all()
    assert not torch.equal(plain.weights(), ours.weights())
