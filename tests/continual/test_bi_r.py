"""Replay through feedback: its joint loss, what it generates for whom, and what it does against forgetting."""

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal

QUICK = {"bi-r.lr": 5e-3, "bi-r.hidden": 128, "bi-r.latent": 16}
DIGITS = {"scenario": "class", "lr": 5e-3, "epochs": 8}
KINDS = [{}, {"bi-r.targets": "hard", "bi-r.gated": 0.0}, {"bi-r.architecture": "conv"}, {"bi-r.space": "latent"}]


def bir(run, *args, options=None, **more):
    return run(*args, "bi-r", strategies_options={**QUICK, **(options or {})}, **{**DIGITS, **more})


def second_task(experiment, state):
    """Go on to the second task's first step, without taking it."""
    while not state.learner.done:
        experiment.step(state, 0.0)
    return state.strategies[0]


def watched(strategy, look):
    """Call ``look(learner, batch, loss)`` after every loss."""
    original = strategy.loss

    def loss(learner, batch, value):
        found = original(learner, batch, value)
        look(learner, batch, found.detach())
        return found

    strategy.loss = loss


def bound(strategy, features, x, belief, gates, noise):
    """The generative loss of every row by its definition: densities from torch's distributions."""
    feedback = strategy.generator
    mean, spread = feedback.mean(features), (feedback.log_variance(features) / 2).exp()
    z = mean + spread * noise
    prior = Normal(feedback.prior.mean, (feedback.prior.log_variance / 2).exp())
    given_class = prior.log_prob(z[:, None]).sum(2)
    divergence = Normal(mean, spread).log_prob(z).sum(1) - (belief.log() + given_class).logsumexp(1)
    out = feedback.decoder(z, gates).sigmoid()
    return F.binary_cross_entropy(out, x, reduction="none").flatten(1).mean(1) + divergence / 64


@pytest.mark.parametrize(
    ("scenario", "given", "factor"),
    [("class", {}, 4), ("class", {"bi-r.scale": "none"}, 1), ("task", {}, 4), ("domain", {}, 4)],
)
def test_the_loss_is_that_of_classification_and_of_generation(experiment, scenario, given, factor):
    ours = bir(experiment, options=given, scenario=scenario, epochs=1)
    state = ours.start()
    strategy, checked = second_task(ours, state), []

    def look(learner, batch, found):
        own, dream, head = batch.own, strategy.dream, learner.head
        with torch.no_grad():
            then = strategy.solver.forward_normalised(batch.images[own:])
            features = learner.model.backbone(batch.images)
        allowed = head.table[dream.tasks] if scenario == "task" else torch.ones_like(then).bool()
        there = (then.masked_fill(~allowed, -1e30) / 2).softmax(1)
        here = batch.logits[own:].masked_fill(~allowed, -1e30)
        generated = factor * F.cross_entropy(here / 2, there)
        mine = head.table[1] if scenario == "task" else torch.ones_like(head.table[1])
        task = F.cross_entropy(batch.logits[:own].masked_fill(~mine, -1e30), batch.labels[:own])
        belief = torch.cat((F.one_hot(batch.labels[:own], state.stream.width).float(), there))
        gates = belief
        if scenario == "domain":
            gates = F.one_hot(torch.cat((torch.ones(own).long(), dream.tasks)), max(state.stream.width, 3)).float()
        noise = torch.randn(2 * own, 16, generator=strategy.random(learner, "train"))
        x = torch.cat((batch.raw / 255, dream.x))
        each = bound(strategy, features, x, belief, gates, noise)
        expected = (task + each[:own].mean() + generated + each[own:].mean()) / 2
        torch.testing.assert_close(found, expected.detach(), atol=1e-4, rtol=1e-4)
        checked.append(learner.task)

    watched(strategy, look)
    for _ in range(3):
        ours.step(state, 0.0)
    assert checked == [1, 1, 1]


@pytest.mark.parametrize("scenario", ["class", "task", "domain"])
def test_what_is_generated_belongs_to_what_was_met(experiment, scenario):
    ours = bir(experiment, scenario=scenario, epochs=1)
    state = ours.start()
    strategy, seen = state.strategies[0], []

    def look(learner, batch, _):
        if strategy.dream is None:
            assert learner.task == 0
            return
        assert len(strategy.dream.x) == batch.own and strategy.dream.tasks.max() < learner.task
        seen.extend((learner.task, task) for task in strategy.dream.tasks.tolist())

    watched(strategy, look)
    while ours.step(state):
        pass
    assert set(seen) == {(1, 0), (2, 0), (2, 1)}


def test_a_generated_image_is_of_the_class_it_was_generated_for(experiment):
    """The earlier network recognises what its own feedback makes of the prior of a class."""
    ours = bir(experiment, epochs=20)
    state = ours.start()
    strategy, right = second_task(ours, state), []
    drawn = []
    prior = strategy.past.prior.sample
    strategy.past.prior.sample = lambda classes, random: drawn.append(classes) or prior(classes, random)
    watched(strategy, lambda *_: right.append((strategy.dream.targets[:, 0].argmax(1) == drawn[-1]).float().mean()))
    for _ in range(5):
        ours.step(state, 0.0)
    assert torch.stack(right).mean() > 0.85


def test_generating_changes_what_the_network_learns_from_the_first_task_on(learn):
    options = {"tasks": 1, "epochs": 1}
    ours, plain = bir(learn, **options), learn("finetune", **{**DIGITS, **options})
    assert not torch.equal(ours.weights(), plain.weights())
    latent = bir(learn, options={"bi-r.space": "latent"}, **options)
    assert torch.equal(latent.weights(), plain.weights())  # features are rebuilt as they are, not made easy to rebuild


@pytest.mark.parametrize("options", [KINDS[0], *(pytest.param(each, marks=pytest.mark.slow) for each in KINDS[1:])])
def test_it_moves_against_forgetting(learn, options):
    nothing, ours = learn("finetune", **DIGITS), bir(learn, options=options)
    assert ours.accuracy > nothing.accuracy + 0.2
    assert ours.metrics["test/forgetting"] < nothing.metrics["test/forgetting"] - 0.3


@pytest.mark.parametrize("scenario", ["permuted", "online", "blurry"])
def test_it_works_in_other_scenarios(learn, scenario):
    run = bir(learn, scenario=scenario, epochs=None if scenario == "online" else 1, batch_size=64)
    assert torch.isfinite(run.weights()).all()


def test_in_latent_space_only_the_head_goes_on_learning(experiment):
    ours = bir(experiment, options={"bi-r.space": "latent"}, backbone="vgg-tiny", epochs=1, batch_size=64)
    state = ours.start()
    second_task(ours, state)
    first = {name: value.clone() for name, value in state.model.state_dict().items()}
    while ours.step(state):
        pass
    changed = {name for name, value in state.model.state_dict().items() if not torch.equal(value, first[name])}
    assert changed == {"head.weight", "head.bias"}
