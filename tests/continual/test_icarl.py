"""iCaRL: its targets, its exemplars, its answers, and what they do against forgetting."""

import pytest
import torch
import torch.nn.functional as F

from engram.backbone.contract import Batch, Outputs
from engram.backbone.errors import UserError

DIGITS = {"scenario": "class", "lr": 5e-3, "buffer": 120}


def at_second_task(experiment, **options):
    ours = experiment("icarl", **{**DIGITS, **options})
    state = ours.start()
    while state.learner.task < 1:
        ours.step(state, 0.0)
    return ours, state


def test_it_keeps_what_finetuning_forgets(learn):
    nothing, ours = learn("finetune", **DIGITS), learn("icarl", **DIGITS)
    assert ours.accuracy > nothing.accuracy + 0.4
    assert ours.metrics["test/forgetting"] < nothing.metrics["test/forgetting"] / 4


def test_distillation_helps(learn):
    few = {**DIGITS, "buffer": 30}
    without = (
        sum(learn("icarl", seed=s, strategies_options={"icarl.distill": 0.0}, **few).accuracy for s in range(3)) / 3
    )
    assert sum(learn("icarl", seed=s, **few).accuracy for s in range(3)) / 3 > without + 0.01


def test_a_task_trains_on_its_images_and_all_exemplars(experiment):
    _, state = at_second_task(experiment)
    learner, kept = state.learner, state.strategies[0].stored()
    assert len(learner.data) == len(state.stream.task(1).train) + 120
    assert torch.equal(learner.data.labels[-120:], kept["labels"])
    assert torch.equal(learner.tasks.bincount(), torch.tensor([120, len(learner.data) - 120]))
    assert set(kept["labels"].tolist()) == set(state.stream.outputs[0])


@pytest.mark.parametrize("scale", ["sum", "mean"])
def test_the_loss_asks_for_the_new_classes_and_the_old_answers(experiment, scale):
    ours, state = at_second_task(experiment, strategies_options={"icarl.scale": scale})
    for _ in range(5):
        ours.step(state, 0.0)
    rule, learner, model = state.strategies[0], state.learner, state.model
    chosen = torch.cat((torch.arange(20), torch.arange(len(learner.data) - 12, len(learner.data))))
    ((raw, labels, _),) = learner.data.batches(chosen, 32, "cpu")
    batch = Batch(raw, learner.augmented(raw, "test"), labels, chosen)
    batch.logits = learner.forward(batch.images)
    loss = rule.loss(learner, batch, learner.trainer.objective(Outputs(batch.logits), batch, 0))
    old, new = state.stream.outputs[0], state.stream.outputs[1]
    said, asked = model(raw).sigmoid(), rule.old(raw).sigmoid()
    assert not torch.allclose(said[:, list(old)], asked[:, list(old)])
    expected = 0.0
    for row, label in enumerate(labels.tolist()):
        for output in (*old, *new):
            target = float(label == output) if output in new else float(asked[row, output])
            p = said[row, output]
            expected = expected - (target * p.log() + (1 - target) * (1 - p).log()) / 32
    torch.testing.assert_close(loss, expected if scale == "sum" else expected / len(old + new))


def test_answers_are_the_nearest_means_of_the_network_as_it_is(learn):
    run = learn("icarl", **DIGITS)
    rule, learner, model = run.strategies[0], run.state.learner, run.model.eval()
    kept, images = rule.stored(), run.state.stream.task(0).test.images[:50]
    with torch.no_grad():
        for _ in range(2):
            exemplars = F.normalize(model.backbone(model.normalise(kept["images"])), dim=1)
            means = [exemplars[kept["labels"] == label].mean(0) for label in range(10)]
            means = F.normalize(torch.stack(means), dim=1)
            x = model.normalise(images)
            answers = torch.cdist(F.normalize(model.backbone(x), dim=1), means)
            found = rule.scores(learner, x)
            assert torch.equal(found.argmax(1), answers.argmin(1))
            torch.testing.assert_close(1 - found, answers.square(), atol=1e-5, rtol=0)
            for p in model.parameters():  # another network: the means must follow
                p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0))


def test_classes_not_met_are_never_answered(experiment):
    _, state = at_second_task(experiment)
    images = state.model.normalise(state.stream.task(2).test.images)
    with torch.no_grad():
        found = state.strategies[0].scores(state.learner, images).argmax(1)
    assert set(found.tolist()) <= set(state.stream.outputs[0])


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_a_task_that_has_not_come_is_not_answered_at_all(learn, order):
    """It has no class mean: every one of its outputs is masked, and none of them may be right by being the first."""
    ours = learn("icarl", scenario="task", tasks=5, epochs=1, class_order=order)
    matrix = ours.state.matrices
    untrained, ahead = matrix.accuracy[0][1:], [matrix.accuracy[task][task] for task in range(1, 5)]
    assert ahead == [matrix.task_aware[task][task] for task in range(1, 5)] == [0.0] * 4
    assert ours.metrics["test/forward_transfer"] == pytest.approx(-sum(untrained) / 4)


def test_exemplars_are_the_first_of_the_herd_and_fewer_as_classes_come(learn, experiment):
    _, state = at_second_task(experiment)
    before = state.strategies[0].stored()
    before = {name: value.clone() for name, value in before.items()}
    kept = learn("icarl", **DIGITS).strategies[0].stored()
    assert torch.bincount(before["labels"], minlength=10).max() == 30
    assert torch.bincount(kept["labels"]).tolist() == [12] * 10
    label = int(before["labels"][0])
    first = before["images"][before["labels"] == label]
    assert torch.equal(kept["images"][kept["labels"] == label], first[:12])


def test_every_class_must_have_an_exemplar(learn):
    with pytest.raises(UserError, match="--buffer must be at least 10 for icarl, an image of every class"):
        learn("icarl", scenario="class", buffer=9, epochs=1)


@pytest.mark.parametrize(("steps", "scenario"), [(1, "task"), (45, "class"), (60, "task"), (70, "class")])
def test_a_run_that_was_broken_off_ends_with_the_same_weights(learned, resume, steps, scenario):
    whole = learned("icarl", scenario=scenario, epochs=2)
    broken = resume(steps, "icarl", scenario=scenario, epochs=2)
    assert torch.equal(whole.weights(), broken.weights())
    assert str(whole.result.tables) == str(broken.result.tables)


def test_it_resumes_right_after_a_task(learn, experiment):
    """What is kept then is for the next task: it must not make the finished one longer."""
    whole = learn("icarl", epochs=2)
    first = experiment("icarl", epochs=2)
    state = first.start()
    while not state.learner.done:
        first.step(state, 0.0)
    saved = first.state_dict(state)
    second = experiment("icarl", epochs=2)
    state = second.start()
    second.load_state_dict(state, saved)
    assert state.learner.done
    while second.step(state):
        pass
    weights = torch.cat([p.detach().flatten() for p in state.model.parameters()])
    assert torch.equal(whole.weights(), weights)


def test_spiking_networks_and_half_precision(learn):
    small = {**DIGITS, "epochs": None, "iterations": 6}
    steps = {"adapter": "snn.spiking", "adapter_options": {"steps": 2}}
    spiking, half = learn("icarl", **steps, **small), learn("icarl", precision="bf16", **small)
    assert torch.isfinite(spiking.weights()).all() and torch.isfinite(half.weights()).all()
    assert not torch.equal(spiking.weights(), learn("finetune", **steps, **small).weights())
    assert not torch.equal(half.weights(), learn("icarl", **small).weights())
