"""Asymmetric cross-entropy: among which classes each row chooses, and what that spares the old ones."""

import pytest
import torch
import torch.nn.functional as F

from engram.backbone.contract import Batch, Objective, Outputs
from engram.backbone.errors import UserError
from engram.backbone.hardware import Machine
from engram.continual.experiment.learner import Learner, Lesson


class Whole(Objective):
    """Has no loss of every row, and an entry that does not say so."""

    def __call__(self, outputs, batch, step):
        return outputs.logits.sum()


DIGITS = {"scenario": "class", "lr": 5e-3, "buffer": 120}


def batch_of(learner, count=32):
    indices = torch.arange(count)
    ((raw, labels, _),) = learner.data.batches(indices, count, "cpu")
    batch = Batch(raw, learner.augmented(raw, "test"), labels, indices, by_rows=True)
    batch.logits = learner.forward(batch.images)
    return batch


def halfway(experiment, **options):
    ours = experiment("er-ace", strategies_options={"er-ace.replay_batch": 20}, **{**DIGITS, **options})
    state = ours.start()
    for _ in range(100):
        ours.step(state, 0.0)
    return state


def test_it_keeps_more_than_finetuning(learned):
    nothing, ours = learned("finetune", **DIGITS), learned("er-ace", **DIGITS)
    assert ours.accuracy > nothing.accuracy + 0.4
    assert ours.metrics["test/forgetting"] < nothing.metrics["test/forgetting"] / 4


def test_a_new_task_takes_less_from_the_old_one_than_with_plain_replay(learn, learned):
    """The point of the paper: at its beginning new classes do not push the old ones away."""
    plain, ours = learn("er", **DIGITS), learned("er-ace", **DIGITS)
    assert ours.metrics["test/forgetting"] < plain.metrics["test/forgetting"]


def test_the_loss_is_the_sum_over_two_sets_of_classes(experiment):
    state = halfway(experiment)
    rule, learner, model = state.strategies[0], state.learner, state.model
    batch, draws = batch_of(learner), rule.buffer.draws
    loss = rule.loss(learner, batch, learner.trainer.objective(Outputs(batch.logits), batch, 0))
    grads = torch.autograd.grad(loss, list(model.parameters()))
    rule.buffer.draws = draws
    kept = rule.buffer.draw(20)
    present = batch.labels.unique()
    met = torch.tensor(sorted({*state.stream.outputs[0], *state.stream.outputs[1]}))
    assert learner.task == 1 and len(present) == 3 and rule.seen.nonzero().flatten().tolist() == met.tolist()
    expected = F.cross_entropy(model(batch.raw)[:, present], torch.searchsorted(present, batch.labels))
    expected = expected + F.cross_entropy(model(kept.images)[:, met], torch.searchsorted(met, kept.labels))
    torch.testing.assert_close(loss, expected)
    for mine, theirs in zip(grads, torch.autograd.grad(expected, list(model.parameters())), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_tasks_own_rows_leave_absent_classes_exactly_alone(experiment):
    state = halfway(experiment)
    rule, learner = state.strategies[0], state.learner
    rule.buffer.filled = 0
    batch = batch_of(learner)
    absent = [output for output in range(10) if output not in batch.labels]
    rule.loss(learner, batch, learner.trainer.objective(Outputs(batch.logits), batch, 0)).backward()
    grad = state.model.head.weight.grad
    assert len(absent) == 7 and (grad[absent] == 0).all() and (grad[batch.labels.unique()] != 0).any(1).all()


@pytest.mark.parametrize("scenario", ["task", "domain", "permuted", "online", "task-free"])
def test_it_works_in_every_scenario(learn, scenario):
    once = {"epochs": None} if scenario in ("online", "task-free") else {"epochs": 2}
    run = learn("er-ace", **{**DIGITS, "scenario": scenario, **once})
    assert run.metrics["stored_samples"] == 120


def test_a_run_that_was_broken_off_ends_with_the_same_weights(learn, resume):
    whole, broken = learn("er-ace", epochs=2), resume(45, "er-ace", epochs=2)
    assert torch.equal(whole.weights(), broken.weights())
    assert str(whole.result.tables) == str(broken.result.tables)


def test_spiking_networks_and_half_precision(learn):
    small = {**DIGITS, "epochs": None, "iterations": 6}
    steps = {"adapter": "snn.spiking", "adapter_options": {"steps": 2}}
    spiking, half = learn("er-ace", **steps, **small), learn("er-ace", precision="bf16", **small)
    assert torch.isfinite(spiking.weights()).all() and torch.isfinite(half.weights()).all()
    assert not torch.equal(spiking.weights(), learn("finetune", **steps, **small).weights())
    assert not torch.equal(half.weights(), learn("er-ace", **small).weights())


def test_an_objective_that_has_not_said_that_it_has_no_rows_is_refused_by_the_learner(experiment):
    state = experiment("er-ace", **DIGITS).start()
    lesson = Lesson(state.stream.task(0).train, 0, state.stream.head)
    with pytest.raises(UserError, match="--objective must be a mean over rows for ERACE, which weighs them; got Whole"):
        Learner(state.model, lesson, state.learner.options, Machine("cpu", "fp32"), Whole(), state.strategies)
