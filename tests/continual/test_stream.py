"""The experiment itself: tasks in turn, tests after each, and a state to resume from."""

import pytest
import torch

from engram.backbone.errors import UserError
from engram.backbone.saved.model import load_model
from engram.backbone.training.loop import Trainer

VALIDATION = "validation/average_accuracy"


@pytest.mark.parametrize("scenario", ["task", "domain", "class", "permuted", "online"])
def test_having_everything_beats_doing_nothing(learn, scenario):
    once = {"epochs": None} if scenario == "online" else {}
    nothing = learn("finetune", scenario=scenario, lr=5e-3, **once)
    everything = learn("joint", scenario=scenario, lr=5e-3, **once)
    assert everything.accuracy > nothing.accuracy


@pytest.mark.parametrize("scenario", ["task", "domain", "class", "permuted"])
@pytest.mark.parametrize("strategy", ["finetune", "joint"])
def test_a_run_that_was_broken_off_ends_with_the_same_weights(learn, resume, scenario, strategy):
    whole = learn(strategy, scenario=scenario, epochs=1)
    broken = resume(20, strategy, scenario=scenario, epochs=1)
    assert torch.equal(whole.weights(), broken.weights())
    whole, broken = whole.result, broken.result
    assert str(whole.tables) == str(broken.tables)
    timed = ("seconds_per_iteration", "train_seconds")
    assert all(value == broken.metrics[name] for name, value in whole.metrics.items() if name not in timed)


@pytest.mark.parametrize(
    ("scenario", "pass_"), [("class", {"epochs": 1}), ("domain", {"iterations": 7}), ("online", {}), ("task-free", {})]
)
def test_a_pass_leaves_no_image_out(experiment, monkeypatch, scenario, pass_):
    """Without their last batches it would be 730 of the 1,438 digits."""
    seen = []
    step = Trainer._step

    def watched(self, model, raw, labels, indices, epoch):
        seen.append((self.hooks[0].task, epoch, indices))
        return step(self, model, raw, labels, indices, epoch)

    monkeypatch.setattr(Trainer, "_step", watched)
    options = {"tasks": 5, "class_order": "sorted", "batch_size": 146, "epochs": None, **pass_}
    ours = experiment("finetune", scenario=scenario, **options)
    state = ours.start()
    while ours.step(state):
        pass
    first = [(task, indices) for task, epoch, indices in seen if epoch == 0]
    assert sum(len(indices) for _, indices in first) == 1438
    for task in range(5):
        shown = torch.cat([indices for of, indices in first if of == task])
        assert torch.equal(shown.sort().values, torch.arange(len(state.stream.task(task).train)))


def test_having_everything_is_counted(learn, resume):
    whole, broken = learn("joint", epochs=1), resume(20, "joint", epochs=1)
    assert whole.metrics["stored_samples"] == broken.metrics["stored_samples"] == 1438
    assert whole.metrics["strategy_bytes"] == 1438 * (64 + 8)  # a byte a pixel, and a label


def test_the_network_is_there_for_other_experiments(learn):
    learned = learn("er", scenario="class", epochs=1)
    loaded, made = load_model(learned.experiment.services.trial_dir / "model")
    assert made.classes == tuple(learned.state.stream.names)
    assert all(torch.equal(value, learned.model.state_dict()[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize("strategy", ["packnet", "hat", "xdg"])
def test_a_network_that_is_another_one_for_every_task_is_not(learn, strategy):
    folder = learn(strategy, scenario="task", epochs=1).experiment.services.trial_dir / "model"
    with pytest.raises(UserError, match=f"must be one that computes by itself; got the network of {strategy}"):
        load_model(folder)


def test_a_fresh_optimizer_for_every_task(learn, resume, experiment):
    kept, fresh = learn("finetune", epochs=1), learn("finetune", epochs=1, reset_optimizer=True)
    assert not torch.equal(kept.weights(), fresh.weights())
    assert torch.equal(fresh.weights(), resume(30, "finetune", epochs=1, reset_optimizer=True).weights())
    ours = experiment("finetune", epochs=1, reset_optimizer=True)
    state = ours.start()
    while state.learner.task < 1:
        ours.step(state, 0.0)
    (adam,) = state.optimizers.parts
    assert {float(each["step"]) for each in adam.state.values()} == {1.0}


def test_one_average_of_the_weights_goes_through_all_tasks_and_is_scored(experiment):
    ours = experiment("finetune", scenario="class", tasks=2, iterations=3, epochs=None, ema=0.7)
    state, want, going = ours.start(), None, True
    while going:
        going = ours.step(state, 0.0)
        now = {name: value.detach().clone() for name, value in state.model.named_parameters()}
        want = now if want is None else {name: 0.7 * want[name] + 0.3 * value for name, value in now.items()}
    assert state.iterations == 6
    scored = dict(state.learner.trainer.scored_model.named_parameters())
    for name, value in want.items():
        torch.testing.assert_close(scored[name], value)
    assert not torch.equal(scored["head.weight"], now["head.weight"])
    split = state.stream.part(0, "test")
    with torch.no_grad():
        right = state.learner.trainer.scored_model.eval()(split.images).argmax(1) == split.labels
    assert state.matrices.accuracy[-1][0] == pytest.approx(right.double().mean().item())
    ours.finish(state)
    saved, _ = load_model(ours.services.trial_dir / "model")
    assert torch.equal(saved.head.weight, scored["head.weight"])


def test_held_out_images_are_scored_by_the_network_that_is_reported(learn):
    ours = learn("er", scenario="class", validation=0.2)
    state, right, count = ours.state, [], []
    with torch.no_grad():
        for task in range(3):
            split = state.stream.part(task, "validation")
            found = ours.model.eval().forward(split.images).argmax(1)
            right.append(int((found == split.labels).sum()))
            count.append(len(split))
    expected = sum(r / n for r, n in zip(right, count, strict=True)) / 3
    assert ours.metrics["validation/average_accuracy"] == pytest.approx(expected)
    told = [(step, *found.values()) for step, found in ours.experiment.services.logged if VALIDATION in found]
    assert [step for step, _ in told] == [1, 2, 3]  # tasks, which is what progress counts
    assert told[-1][1] == ours.metrics[VALIDATION] < told[0][1]
    assert sum(count) + sum(len(state.stream.task(task).train) for task in range(3)) == 1438


def test_transfer_is_read_from_the_matrix(learn):
    ours = learn("finetune", scenario="permuted", epochs=2)
    r = ours.state.matrices.accuracy  # row 0 is the untrained network
    forward = sum(r[j][j] - r[0][j] for j in (1, 2)) / 2
    assert ours.metrics["test/forward_transfer"] == pytest.approx(forward)
    assert ours.metrics["test/backward_transfer"] == pytest.approx(sum(r[3][j] - r[j + 1][j] for j in (0, 1)) / 2)
    assert ours.metrics["test/plasticity"] == pytest.approx(sum(r[j + 1][j] for j in range(3)) / 3)


def test_forgetting_is_drawn_as_it_is_reported(learn):
    ours = learn("finetune", scenario="permuted", epochs=2)
    lost = ours.result.figures["forgetting"].series
    assert list(lost) == ["task 1", "task 2"] and lost["task 1"][0] == (1.0, 0.0)
    final = [points[-1][1] for points in lost.values()]
    assert sum(final) / 2 == pytest.approx(ours.metrics["test/forgetting"])


def test_what_is_known_to_fail_stands_in_the_result(learn):
    (row,) = learn("ewc", scenario="class", epochs=1).result.tables["cautions"]
    assert row["caution"].startswith("ewc is known to fail")
    assert "cautions" not in learn("er", scenario="class", epochs=1).result.tables
