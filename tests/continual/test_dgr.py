"""Generative replay: what is asked of whom, with what weight, and what it does against forgetting."""

import copy
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from engram.continual.distilling import Scale

QUICK = {"dgr.lr": 5e-3, "dgr.hidden": 128, "dgr.latent": 16}
DIGITS = {"scenario": "class", "lr": 5e-3, "epochs": 8}
KINDS = [{}, {"dgr.targets": "soft"}, {"dgr.architecture": "conv"}, {"dgr.space": "latent"}]


def dgr(run, *args, options=None, **more):
    return run(*args, "dgr", strategies_options={**QUICK, **(options or {})}, **{**DIGITS, **more})


class Recorder:
    """Keeps of every step what went into the loss of a strategy, and what came out."""

    def __init__(self, monkeypatch, strategy):
        self.seen = []
        original = strategy.loss

        def loss(learner, batch, value):
            found = original(learner, batch, value)
            kept = (learner, learner.task, batch, strategy.dream, copy.deepcopy(strategy.solver), found.detach())
            self.seen.append(kept)
            return found

        monkeypatch.setattr(strategy, "loss", loss)


def steps(experiment, count):
    state = experiment.start()
    for _ in range(count):
        assert experiment.step(state, 0.0)
    return state


def expected(learner, task, batch, solver, kind, scale="none"):
    """The loss by its definition, one question after another."""
    own, head = batch.own, learner.head
    with torch.no_grad():
        then = solver.forward_normalised(batch.images[own:])
    if head.kind == "multi":
        questions = [(head.table[k], head.table[k]) for k in range(task)]
        answer = batch.logits[:own][:, head.table[task]]
        labels = (head.table[task].cumsum(0) - 1)[batch.labels[:own]]
    else:
        met = head.met if head.kind == "growing" else torch.ones_like(head.met)
        questions = [(met[task - 1], met[task])]
        answer, labels = batch.logits[:own], batch.labels[:own]
        answer = answer.masked_fill(~met[task], -1e30)
    losses = []
    for old, new in questions:
        asked, there = batch.logits[own:].masked_fill(~new, -1e30), then.masked_fill(~old, -1e30)
        if kind == "soft":
            factor = {"none": 1, "temperature": 4, "outputs": 4 / int(new.sum())}[scale]
            losses.append(factor * F.cross_entropy(asked / 2, (there / 2).softmax(1)))
        else:
            losses.append(F.cross_entropy(asked, there.argmax(1)))
    return F.cross_entropy(answer, labels) / (task + 1) + sum(losses) / len(losses) * task / (task + 1)


@pytest.mark.parametrize(
    ("head", "kind", "scale"),
    [  # outputs are counted for every head; nothing else of a scale knows of heads
        *((head, *each) for head in ("single", "growing", "multi") for each in (("hard", "none"), ("soft", "outputs"))),
        *(("single", "soft", each) for each in get_args(Scale) if each != "outputs"),
    ],
)
def test_the_loss_is_the_weighted_sum_over_the_task_and_the_generated_rows(experiment, monkeypatch, kind, scale, head):
    scenario = "task" if head == "multi" else "class"
    given = {"dgr.targets": kind, "dgr.scale": scale}
    ours = dgr(experiment, options=given, scenario=scenario, head=head, epochs=1)
    state = ours.start()
    record = Recorder(monkeypatch, state.strategies[0])
    while ours.step(state):
        pass
    later = [each for each in record.seen if each[1] > 0]
    assert len(later) > 10 and all(len(each[2].labels) == each[2].own for each in record.seen if each[1] == 0)
    assert {each[2].own for each in later} == {32, *(len(each[0].data) % 32 for each in later)}
    for learner, task, batch, _, solver, loss in later:
        assert len(batch.labels) == 2 * batch.own
        torch.testing.assert_close(loss, expected(learner, task, batch, solver, kind, scale))


def test_the_network_sees_generated_images_as_it_sees_others(experiment, monkeypatch):
    ours = dgr(experiment, epochs=1)
    state = ours.start()
    record = Recorder(monkeypatch, state.strategies[0])
    while ours.step(state):
        pass
    learner, _, batch, dream, _, _ = record.seen[-1]
    assert 0 <= dream.x.min() < dream.x.max() <= 1 and not dream.x.requires_grad
    torch.testing.assert_close(batch.images[batch.own :], learner.model.normalise(dream.x))


@pytest.mark.parametrize("space", ["pixel", "latent"])
def test_the_generator_is_trained_on_the_same_mix(experiment, space):
    ours = dgr(experiment, options={"dgr.space": space}, epochs=1)
    state = steps(ours, 25)
    strategy, learner = state.strategies[0], state.learner
    assert learner.task == 1
    before, optimizer = copy.deepcopy(strategy.generator), copy.deepcopy(strategy.optimizer.state_dict())
    original, seen = strategy.after_step, []

    def after_step(learner, batch):
        mine = torch.optim.Adam(before.parameters(), 5e-3)
        mine.load_state_dict(optimizer)
        own = batch.raw.float() / 255 if space == "pixel" else strategy.features.value[:32]
        noise = torch.randn(64, 16, generator=strategy.random(learner, "train"))
        losses = before.losses(torch.cat((own, strategy.dream.x)), noise)
        (losses[:32].mean() / 2 + losses[32:].mean() / 2).backward()
        mine.step()
        original(learner, batch)
        seen.append(learner.step)

    strategy.after_step = after_step
    assert ours.step(state, 0.0) and len(seen) == 1
    for a, b in zip(before.parameters(), strategy.generator.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_without_earlier_tasks_it_is_finetuning(learn):
    options = {"tasks": 1, "epochs": 2}
    assert torch.equal(dgr(learn, **options).weights(), learn("finetune", **{**DIGITS, **options}).weights())


@pytest.mark.parametrize("options", [KINDS[0], *(pytest.param(each, marks=pytest.mark.slow) for each in KINDS[1:])])
def test_it_moves_against_forgetting(learn, learned, options):
    nothing, ours = learned("finetune", **DIGITS, seed=2), dgr(learn, options=options, seed=2)
    assert ours.accuracy > nothing.accuracy + 0.15
    assert ours.metrics["test/forgetting"] < nothing.metrics["test/forgetting"] - 0.2
    assert ours.metrics["stored_samples"] == 0


@pytest.mark.parametrize("scenario", ["task", "domain", "permuted", "online", "blurry"])
def test_it_works_in_every_scenario_that_tells_tasks(learn, scenario):
    run = dgr(learn, scenario=scenario, epochs=None if scenario == "online" else 1, batch_size=64)
    assert torch.isfinite(run.weights()).all()


def test_in_latent_space_only_the_head_goes_on_learning(experiment):
    ours = dgr(experiment, options={"dgr.space": "latent"}, backbone="vgg-tiny", epochs=1, batch_size=64)
    state = steps(ours, 2)
    while not state.learner.done:
        ours.step(state, 0.0)
    first = {name: value.clone() for name, value in state.model.state_dict().items()}
    assert any(name.endswith("running_mean") for name in first)
    while ours.step(state):
        pass
    changed = {name for name, value in state.model.state_dict().items() if not torch.equal(value, first[name])}
    assert changed == {"head.weight", "head.bias"}
