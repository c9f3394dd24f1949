"""A-GEM: the projection, what is kept, and what that does against forgetting."""

import pytest
import torch
import torch.nn.functional as F

from engram.continual.replay.agem import project

DIGITS = {"scenario": "class", "lr": 5e-3, "buffer": 120}


def flat(parts):
    return torch.cat([part.reshape(-1) for part in parts])


def random_parts(seed):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=random) for shape in ((7, 5), (7,), (3, 2, 2, 2))]


@pytest.mark.parametrize("seed", range(6))
def test_the_projection_is_the_nearest_gradient_that_does_no_harm(seed):
    gradient, reference = random_parts(seed), tuple(random_parts(seed + 100))
    before, r = flat(gradient).clone(), flat(reference)
    project(gradient, reference)
    after, inner = flat(gradient), before @ r
    if inner >= 0:
        assert torch.equal(after, before)
    else:
        torch.testing.assert_close(after, before - inner / r.square().sum() * r)
        assert abs(float(after @ r)) < 1e-4
        other = before + 0.01 * torch.randn(100, len(r)) * r.norm()  # no other harmless one is nearer
        harmless = other[other @ r >= 0]
        assert ((harmless - before).norm(dim=1) >= (after - before).norm() - 1e-5).all()


def test_a_reference_of_zeros_changes_nothing():
    gradient = random_parts(0)
    before = flat(gradient).clone()
    project(gradient, tuple(torch.zeros_like(each) for each in gradient))
    assert torch.equal(flat(gradient), before)


def test_steps_go_along_the_projected_gradient(experiment):
    ours = experiment("agem", strategies_options={"agem.replay_batch": 25}, **DIGITS)
    state = ours.start()
    while state.learner.task < 1:
        ours.step(state, 0.0)
    rule, learner, model = state.strategies[0], state.learner, state.model
    params = list(model.parameters())
    ((raw, labels, _),) = learner.data.batches(torch.arange(32), 32, "cpu")
    F.cross_entropy(model(raw), labels).backward()
    before, draws = flat([p.grad for p in params]).clone(), rule.buffer.draws
    rule.after_backward(learner, None)
    rule.buffer.draws = draws
    kept = rule.buffer.draw(25)
    r = flat(torch.autograd.grad(F.cross_entropy(model(kept.images), kept.labels), params))
    inner = before @ r
    assert inner < 0  # new classes pull against the old ones
    torch.testing.assert_close(flat([p.grad for p in params]), before - inner / (r @ r) * r)


def test_the_first_task_is_that_of_finetuning(experiment):
    states = []
    for name in ("finetune", "agem"):
        ours = experiment(name, **DIGITS)
        states.append(state := ours.start())
        while not state.learner.done:
            ours.step(state, 0.0)
    first, second = (flat(state.model.parameters()) for state in states)
    assert torch.equal(first, second)


def test_an_equal_share_of_every_task_is_kept(learn):
    run = learn("agem", scenario="class", buffer=100, epochs=1)
    kept = run.strategies[0].stored()
    assert torch.bincount(kept["tasks"]).tolist() == [33, 33, 33]
    assert all(
        label in run.state.stream.outputs[task] for label, task in zip(kept["labels"], kept["tasks"], strict=True)
    )


def test_it_forgets_less_where_tasks_are_told_and_where_they_look_different(learn):
    permuted = {"scenario": "permuted", "lr": 5e-3, "buffer": 120}
    nothing, ours = learn("finetune", **permuted), learn("agem", **permuted)
    assert ours.metrics["test/forgetting"] < nothing.metrics["test/forgetting"] - 0.02
    assert ours.accuracy > nothing.accuracy + 0.02
    told = {"scenario": "task", "lr": 5e-3, "buffer": 120}
    assert learn("agem", **told).accuracy > learn("finetune", **told).accuracy + 0.01


@pytest.mark.parametrize("scenario", ["class", "task"])
def test_a_run_that_was_broken_off_ends_with_the_same_weights(learn, resume, scenario):
    whole = learn("agem", scenario=scenario, epochs=2)
    broken = resume(45, "agem", scenario=scenario, epochs=2)
    assert torch.equal(whole.weights(), broken.weights())
    assert str(whole.result.tables) == str(broken.result.tables)


def test_spiking_networks_and_half_precision(learn):
    small = {**DIGITS, "epochs": None, "iterations": 6}
    steps = {"adapter": "snn.spiking", "adapter_options": {"steps": 2}}
    spiking, half = learn("agem", **steps, **small), learn("agem", precision="bf16", **small)
    assert torch.isfinite(spiking.weights()).all() and torch.isfinite(half.weights()).all()
    assert not torch.equal(spiking.weights(), learn("finetune", **steps, **small).weights())
    assert not torch.equal(half.weights(), learn("agem", **small).weights())
