"""PackNet: what a task has kept stays bit for bit, whatever the optimizer; the rest is for the next one."""

import pytest
import torch

from engram.continual.isolation.packnet import FREE

DIGITS = {"scenario": "task", "lr": 5e-3, "epochs": 4}
HARD = {**DIGITS, "scenario": "permuted", "head": "multi", "epochs": 4}
OPTIMIZERS = {
    "adamw": {"weight_decay": 0.1},
    "sgd": {"optimizer": "sgd", "lr": 5e-3, "momentum": 0.9, "weight_decay": 0.01},
}
NETS = [("mlp", {"width": 0.25}), ("mlp", {"width": 0.25, "normalisation": "group"}), ("vgg-tiny", {"width": 0.5}),
        ("resnet-tiny", {"width": 0.5})]  # fmt: skip


def logits(state, task):
    """Logits of the network as it is tested on a task, with the task's own outputs."""
    learner, images = state.learner, state.stream.task(task).test.images[:64]
    with torch.no_grad():
        learner.enter(task)
        found = state.model.eval()(images)[:, list(state.stream.outputs[task])]
        learner.enter(learner.task)
    return found


def tasks(ours, state):
    """Learn, and stop after every task."""
    going = True
    while going:
        going = ours.step(state)
        if state.learner.done:
            yield state.learner.task


@pytest.mark.parametrize(  # both optimizers, and every network with one of them
    ("backbone", "options", "optimizer"),
    [(*NETS[0], "adamw"), *((*net, ("sgd", "adamw")[at % 2]) for at, net in enumerate(NETS))],
)
def test_earlier_tasks_stay_bit_for_bit(experiment, backbone, options, optimizer):
    settings = {**DIGITS, "epochs": 3, **OPTIMIZERS[optimizer], "backbone": backbone, "backbone_options": options}
    ours = experiment("packnet", **settings)
    state = ours.start()
    learned = [logits(state, task) for task in tasks(ours, state)]
    assert len(learned) == 3 and not torch.equal(learned[0], learned[1])
    for task, then in enumerate(learned):
        assert torch.equal(logits(state, task), then)
    result = ours.finish(state)
    assert result.metrics["test/forgetting"] == 0 and result.metrics["test/average_accuracy"] > 0.6


def test_without_it_the_same_run_forgets(learn):
    settings = {**HARD, "weight_decay": 0.1, "backbone_options": {"width": 0.5}}
    plain, packed = learn("finetune", **settings), learn("packnet", **settings)
    assert packed.metrics["test/forgetting"] == 0 < plain.metrics["test/forgetting"] - 0.05
    assert packed.accuracy > plain.accuracy + 0.02


def test_every_task_prunes_the_smallest_free_weights_of_every_layer(experiment):
    ours = experiment("packnet", strategies_options={"packnet.prune": 0.6}, **DIGITS)
    state = ours.start()
    strategy, free = state.strategies[0], [p.numel() for p in state.strategies[0].weights]
    assert len(free) == 2  # the head is no part of it
    while True:
        before = [p.detach().clone() for p in strategy.weights]
        owned = [owner != FREE for owner in strategy.owner]
        going = ours.step(state, 0.0)
        task = state.learner.task
        if strategy.pruned == task and state.learner.step == strategy.prune_at(state.learner):
            for place, (p, owner) in enumerate(zip(strategy.weights, strategy.owner, strict=True)):
                left = owner == FREE
                assert left.sum() == round(0.6 * free[place]) and not p[left].any()
                assert torch.equal(p[owned[place]], before[place][owned[place]])
                mine = p[owner == task].abs()
                assert before[place][left].abs().max() <= mine.min() + 0.02  # weights moved by one step since
                free[place] = int(left.sum())
        elif strategy.pruned == task:
            assert all(not p[owner == FREE].any() for p, owner in zip(strategy.weights, strategy.owner, strict=True))
        if not going:
            break
    shares = ours.finish(state).tables["packnet"][0]
    assert shares["free"] == pytest.approx(0.6**3, abs=1e-3) and sum(shares.values()) == pytest.approx(1)


def test_pruning_comes_when_a_third_of_the_steps_is_left(experiment):
    ours = experiment("packnet", **DIGITS)
    state = ours.start()
    total, strategy = state.learner.total_steps, state.strategies[0]
    while strategy.pruned < 0:
        ours.step(state, 0.0)
    assert state.learner.step == total - round(0.33 * total)
    last = experiment("packnet", strategies_options={"packnet.retrain": 0.0}, **DIGITS)
    state = last.start()
    while state.learner.step < total - 1:
        last.step(state, 0.0)
    assert state.strategies[0].pruned == -1
    last.step(state, 0.0)
    assert state.strategies[0].pruned == 0 and state.learner.done


def test_training_again_makes_up_for_the_pruning(learn):
    settings = {**DIGITS, "epochs": 6}
    without = learn("packnet", strategies_options={"packnet.prune": 0.95, "packnet.retrain": 0.0}, **settings)
    with_it = learn("packnet", strategies_options={"packnet.prune": 0.95, "packnet.retrain": 0.5}, **settings)
    assert with_it.accuracy > without.accuracy + 0.05


def test_a_test_in_between_leaves_the_weights_alone(experiment):
    ours = experiment("packnet", **DIGITS)
    state = ours.start()
    for _ in range(80):
        ours.step(state, 0.0)
    before = [p.detach().clone() for p in state.model.parameters()]
    assert state.learner.task == 1
    state.learner.enter(0)
    assert not all(torch.equal(p, b) for p, b in zip(state.model.parameters(), before, strict=True))
    state.learner.enter(2)
    state.learner.enter(0)
    state.learner.enter(1)
    assert all(torch.equal(p, b) for p, b in zip(state.model.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("steps", "optimizer"),
    [(60, "adamw"), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((80, "sgd"), (89, "adamw")))],
)
def test_a_broken_off_run_goes_on_exactly(learned, resume, steps, optimizer):
    settings = {
        **DIGITS,
        "epochs": 3,
        **OPTIMIZERS[optimizer],
        "backbone": "vgg-tiny",
        "backbone_options": {"width": 0.5},
    }
    whole, broken = learned("packnet", **settings), resume(steps, "packnet", **settings)
    assert torch.equal(whole.weights(), broken.weights())
    assert str(whole.result.tables) == str(broken.result.tables)


@pytest.mark.parametrize("more", [{"adapter": "snn.spiking", "adapter_options": {"steps": 2}}, {"precision": "bf16"}])
def test_it_works_on_spikes_and_in_mixed_precision(learn, more):
    settings = {**DIGITS, "epochs": 2, "backbone": "vgg-tiny", "backbone_options": {"width": 0.5}, **more}
    run = learn("packnet", **settings)
    assert run.weights().isfinite().all() and run.metrics["test/forgetting"] == 0
