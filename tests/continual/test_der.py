"""Dark experience replay: the logits it keeps, its losses, and what they do against forgetting."""

import pytest
import torch
import torch.nn.functional as F

from engram.backbone.contract import Batch, Outputs

DIGITS = {"scenario": "class", "lr": 5e-3, "buffer": 120}
STRONG = {"der": {"der.alpha": 1.0}, "derpp": {"derpp.alpha": 0.5, "derpp.beta": 0.5}}


@pytest.mark.parametrize("strategy", ["der", "derpp"])
def test_it_halves_what_finetuning_forgets(learn, learned, strategy):
    nothing = learned("finetune", **DIGITS)
    replayed = learn(strategy, strategies_options=STRONG[strategy], **DIGITS)
    assert replayed.accuracy > nothing.accuracy + 0.4
    assert replayed.metrics["test/forgetting"] < nothing.metrics["test/forgetting"] / 2


@pytest.mark.parametrize("head", ["single", "multi"])
def test_logits_are_those_of_the_step_in_which_an_image_came(experiment, monkeypatch, head):
    ours = experiment("der", scenario="task" if head == "multi" else "class", head=head, buffer=50)
    state = ours.start()
    strategy, said = state.strategies[0], {}
    after_step = strategy.after_step

    def note(learner, batch):
        for image, logits in zip(batch.raw, batch.logits[: batch.own], strict=True):
            said.setdefault(image.numpy().tobytes(), []).append(logits.detach().clone())
        after_step(learner, batch)

    monkeypatch.setattr(strategy, "after_step", note)
    while ours.step(state):
        pass
    kept = strategy.buffer.content()
    for image, logits in zip(kept.images, kept.logits, strict=True):
        assert any(torch.equal(logits, each) for each in said[image.numpy().tobytes()])
    assert kept.logits.shape == (50, 10) and not kept.logits.requires_grad


@pytest.mark.parametrize("strategy", ["der", "derpp"])
def test_the_loss_and_its_gradient_are_the_papers(experiment, strategy):
    """One step in the middle of task 2, beside the sum of the terms written down plainly."""
    ours = experiment(strategy, strategies_options={**STRONG[strategy], f"{strategy}.replay_batch": 20}, **DIGITS)
    state = ours.start()
    for _ in range(100):
        ours.step(state, 0.0)
    rule, learner, model = state.strategies[0], state.learner, state.model
    batch = _batch(learner)
    draws = rule.buffer.draws
    loss = rule.loss(learner, batch, learner.trainer.objective(Outputs(batch.logits), batch, 0))
    grads = torch.autograd.grad(loss, list(model.parameters()))
    assert rule.buffer.draws == draws + (1 if strategy == "der" else 2)
    rule.buffer.draws = draws
    first, second = rule.buffer.draw(20), rule.buffer.draw(20)
    assert not torch.equal(first.images, second.images)
    expected = F.cross_entropy(model(batch.raw), batch.labels)
    distance = (model(first.images) - first.logits).square().sum() / (20 * 10)
    if strategy == "der":
        expected = expected + 1.0 * distance
    else:
        expected = expected + 0.5 * distance + 0.5 * F.cross_entropy(model(second.images), second.labels)
    torch.testing.assert_close(loss, expected)
    for mine, theirs in zip(grads, torch.autograd.grad(expected, list(model.parameters())), strict=True):
        torch.testing.assert_close(mine, theirs)


def _batch(learner):
    indices = torch.arange(32)
    ((raw, labels, _),) = learner.data.batches(indices, 32, "cpu")
    batch = Batch(raw, learner.augmented(raw, "test"), labels, indices)
    batch.logits = learner.forward(batch.images)
    return batch


@pytest.mark.parametrize(
    ("strategy", "options"), [("der", {"der.alpha": 0.0}), ("derpp", {"derpp.alpha": 0.0, "derpp.beta": 0.0})]
)
def test_without_weight_nothing_changes(learn, strategy, options):
    kept = learn(strategy, strategies_options=options, epochs=2)
    assert torch.equal(kept.weights(), learn("finetune", epochs=2).weights())


def test_replayed_rows_do_not_change_how_the_tasks_own_are_normalised(learn):
    """Batch normalisation: the buffer's rows make passes of their own, so a weight of zero changes no weights."""
    norm = {"backbone_options": {"width": 0.25, "normalisation": "batch"}, "epochs": 1}
    kept = learn("derpp", strategies_options={"derpp.alpha": 0.0, "derpp.beta": 0.0}, **norm)
    assert torch.equal(kept.weights(), learn("finetune", **norm).weights())


@pytest.mark.parametrize("scenario", ["task", "domain", "permuted", "online", "task-free"])
def test_it_works_in_every_scenario(learn, scenario):
    once = {"epochs": None} if scenario in ("online", "task-free") else {"epochs": 2}
    run = learn("derpp", **{**DIGITS, "scenario": scenario, **once})
    assert run.metrics["stored_samples"] == 120


@pytest.mark.parametrize("strategy", ["der", "derpp"])
def test_a_run_that_was_broken_off_ends_with_the_same_weights(learn, resume, strategy):
    whole = learn(strategy, strategies_options=STRONG[strategy], epochs=2)
    broken = resume(45, strategy, strategies_options=STRONG[strategy], epochs=2)
    assert torch.equal(whole.weights(), broken.weights())
    assert str(whole.result.tables) == str(broken.result.tables)


def test_spiking_networks_and_half_precision(learn):
    small = {**DIGITS, "epochs": None, "iterations": 6}
    steps = {"adapter": "snn.spiking", "adapter_options": {"steps": 2}}
    spiking, half = learn("derpp", **steps, **small), learn("derpp", precision="bf16", **small)
    assert torch.isfinite(spiking.weights()).all() and torch.isfinite(half.weights()).all()
    assert not torch.equal(spiking.weights(), learn("finetune", **steps, **small).weights())
    assert not torch.equal(half.weights(), learn("derpp", **small).weights())
