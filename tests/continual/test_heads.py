"""Heads: which outputs count, in training and in tests; and what lies between the solutions of two tasks."""

from itertools import pairwise

import pytest
import torch

from engram.continual.experiment.connectivity import between
from engram.continual.prototypes import class_sums
from engram.continual.strategy import StrategyBase
from engram.continual.tasks.heads import HeadMasks


def test_masks():
    outputs = [(0, 3), (1, 2)]
    single, multi, growing = (HeadMasks(kind, outputs, 4, "cpu") for kind in ("single", "multi", "growing"))
    assert single.allowed(0) is None
    assert multi.allowed(1).tolist() == [False, True, True, False]
    assert multi.allowed(torch.tensor([0, 1])).tolist() == [[True, False, False, True], [False, True, True, False]]
    assert growing.allowed(0).tolist() == [True, False, False, True] and growing.allowed(1).all()
    assert not HeadMasks("multi", [(0, 1), (0, 1)], 2, "cpu").by_task


@pytest.mark.parametrize(("head", "moved"), [("single", True), ("multi", False), ("growing", False)])
def test_outputs_that_are_not_offered_are_not_trained(learn, head, moved):
    ours = learn("finetune", scenario="task" if head == "multi" else "class", head=head, tasks=2, class_order="sorted")
    first = learn("finetune", scenario="class", head="growing", tasks=2, class_order="sorted", epochs=1)
    assert ours.state.stream.outputs[1] == first.state.stream.outputs[1] == (5, 6, 7, 8, 9)
    experiment = ours.experiment
    state = experiment.start()
    before = state.model.head.weight.detach().clone()
    while not state.learner.done:
        experiment.step(state, 0.0)
    changed = (state.model.head.weight != before).any(1)
    assert changed[:5].all() and changed[5:].all().item() == moved


STATEFUL = [
    {"optimizer": "adamw"}, {"optimizer": "adamw", "weight_decay": 1.0, "lr": 5e-3},
    {"optimizer": "sgd", "momentum": 0.9, "lr": 0.01}, {"optimizer": "sgd", "weight_decay": 0.1, "lr": 0.01},
]  # fmt: skip


def heads_over_tasks(experiment, strategy, **options):
    """The outputs' weights, [K, D + 1], before the first step and after every task; and the outputs of each task."""
    ours = experiment(strategy, epochs=1, **options)
    state = ours.start()

    def now():
        head = state.model.head
        return torch.cat((head.weight, head.bias[:, None]), 1).detach().clone()

    found, going = [now()], True
    while going:
        going = ours.step(state)
        if state.learner.done:
            found.append(now())
    return found, [list(outputs) for outputs in state.stream.outputs]


@pytest.mark.parametrize(
    ("strategy", "optimizer"),
    [
        *(("finetune", optimizer) for optimizer in STATEFUL),
        *((name, optimizer) for name in ("si", "ewc", "xdg", "packnet", "hat") for optimizer in STATEFUL[1:3]),
    ],
)
def test_the_head_of_a_task_moves_in_that_task_alone(experiment, strategy, optimizer):
    """Moments alone would move it by 4 % with Adam, decay by 14."""
    heads, outputs = heads_over_tasks(experiment, strategy, scenario="task", **optimizer)
    for task, (before, after) in enumerate(pairwise(heads)):
        for other, rows in enumerate(outputs):
            same = (before[rows] == after[rows]).all(1)
            assert same.all() if other != task else not same.any()


@pytest.mark.parametrize("optimizer", STATEFUL)
@pytest.mark.parametrize(("scenario", "head"), [("class", "growing"), ("class", "prototype"), ("permuted", "multi")])
def test_outputs_that_have_not_come_do_not_move(experiment, scenario, head, optimizer):
    heads, outputs = heads_over_tasks(experiment, "finetune", scenario=scenario, head=head, **optimizer)
    for task, (before, after) in enumerate(pairwise(heads)):
        moved = [bool((before[rows] != after[rows]).any()) for rows in outputs]
        assert moved == [other == task if head == "multi" else other <= task for other in range(3)]


@pytest.mark.parametrize("strategy", ["joint", "lwf", "er", "derpp", "er-ace", "agem", "icarl", "dgr", "bi-r"])
def test_heads_that_are_replayed_or_distilled_go_on_learning(experiment, strategy):
    heads, outputs = heads_over_tasks(experiment, strategy, scenario="task")
    for task, (before, after) in enumerate(pairwise(heads)):
        moved = [(before[rows] != after[rows]).any(1) for rows in outputs]
        assert all(each.all() for each in moved[: task + 1])
        assert strategy == "derpp" or not any(each.any() for each in moved[task + 1 :])


def test_a_strategy_that_says_nothing_of_its_reach_may_reach_everything(experiment):
    class Stranger(StrategyBase):
        pass

    ours = experiment("finetune", scenario="task")
    state = ours.start()
    optimizers = state.optimizers
    assert len(optimizers.trained) < sum(map(len, optimizers.layers))
    state.strategies.append(Stranger(None, None, None))
    ours.learning._learner(state, 0)
    assert len(optimizers.trained) == sum(map(len, optimizers.layers))


@pytest.mark.parametrize("optimizer", STATEFUL[1:3])
@pytest.mark.parametrize(("scenario", "head"), [("class", "growing"), ("task", "multi")])
def test_resumed_heads(learn, resume, scenario, head, optimizer):
    options = {"scenario": scenario, "head": head, "epochs": 1, **optimizer}
    assert torch.equal(learn("er", **options).weights(), resume(25, "er", **options).weights())


def test_task_aware_accuracy_asks_the_task_alone(learn):
    ours = learn("finetune", scenario="class", tasks=3)
    assert ours.metrics["test/task_aware_accuracy"] > ours.accuracy + 0.2


def test_nearest_means_answer_in_the_place_of_the_layer(learn):
    layer = learn("finetune", scenario="class", head="growing", tasks=2)
    means = learn("finetune", scenario="class", head="prototype", tasks=2)
    assert torch.equal(layer.weights(), means.weights())  # training is the same
    assert means.state.matrices.accuracy[1][0] > 0.9
    assert means.state.matrices.task_aware != layer.state.matrices.task_aware


def test_means_of_kept_images_follow_the_network_and_others_are_left_behind(learn):
    stale = learn("finetune", scenario="class", head="prototype")
    fresh = learn("er", scenario="class", head="prototype", buffer=100)
    assert fresh.accuracy > stale.accuracy + 0.2


def test_means_are_of_all_that_several_strategies_keep_of_earlier_tasks(learn):
    ours = learn("er", "agem", scenario="class", head="prototype", buffer=90, epochs=1)
    stored = [strategy.stored() for strategy in ours.strategies[:2]]
    label = ours.state.stream.outputs[0][0]
    images = [kept["images"][kept["labels"] == label] for kept in stored]
    assert all(map(len, images))
    with torch.no_grad():
        mean = ours.model.eval().backbone(ours.model.normalise(torch.cat(images))).mean(0)
    torch.testing.assert_close(ours.strategies[-1].means[label], mean)
    newest = ours.state.stream.outputs[2][0]
    split = ours.state.learner.data
    with torch.no_grad():
        mean = ours.model.backbone(ours.model.normalise(split.images[split.labels == newest])).mean(0)
    torch.testing.assert_close(ours.strategies[-1].means[newest], mean)  # none of its images counts twice


def test_class_means_are_those_of_all_images(learn):
    ours = learn("finetune", scenario="class", head="prototype")
    learner, split = ours.state.learner, ours.state.stream.task(2).train
    sums, counts = class_sums(learner, split, 10)
    features = ours.model.backbone(ours.model.normalise(split.images))
    for output in ours.state.stream.outputs[2]:
        mean = features[split.labels == output].mean(0)
        assert sums[output] / counts[output] == pytest.approx(mean.tolist(), abs=1e-4)
        assert ours.strategies[-1].means[output].tolist() == pytest.approx(mean.tolist(), abs=1e-4)


def test_a_task_whose_classes_have_no_means_yet_is_not_answered(learn):
    ours = learn("er", scenario="class", head="prototype", epochs=1, seed=2)
    assert any(0 in outputs for outputs in ours.state.stream.outputs[1:])  # where an answer by chance would be right
    assert ours.state.matrices.task_aware[1][1] == ours.state.matrices.task_aware[2][2] == 0


def test_a_prototype_head_is_resumed(learn, resume):
    options = {"scenario": "class", "head": "prototype", "epochs": 2}
    whole, broken = learn("finetune", **options), resume(45, "finetune", **options)
    assert str(whole.result.tables) == str(broken.result.tables)


def test_the_way_between_solutions(learn, resume):
    ours = learn("finetune", scenario="domain", connectivity=5, epochs=2)
    rows = ours.result.tables["connectivity"]
    matrix = ours.state.matrices.accuracy
    assert [row["after"] for row in rows] == [1] * 5 + [2] * 5
    assert rows[0]["earlier"] == matrix[1][0] and rows[4]["next"] == matrix[2][1] and rows[9]["next"] == matrix[3][2]
    assert rows[9]["earlier"] == pytest.approx((matrix[3][0] + matrix[3][1]) / 2)
    assert ours.metrics["test/connectivity_barrier"] >= 0
    broken = resume(45, "finetune", scenario="domain", connectivity=5, epochs=2)
    assert broken.result.tables["connectivity"] == rows


def test_halfway_is_the_mean():
    first, second = ({"w": torch.tensor([x]), "n": torch.tensor(int(x))} for x in (1.0, 3.0))
    assert between(first, second, 0.25)["w"] == 1.5 and between(first, second, 0.75)["n"] == 3


def test_a_prototype_head_leaves_the_training_data_to_the_strategies(learn):
    ours = learn("joint", scenario="class", head="prototype", epochs=1)
    assert len(ours.state.learner.data) == len(ours.state.stream.data.train)


@pytest.mark.parametrize("strategy", ["er", "derpp", "er-ace"])
def test_old_rows_are_compared_with_new_classes_as_the_head_grows(experiment, strategy):
    ours = experiment(strategy, scenario="class", head="growing", epochs=1)
    state = ours.start()
    while state.learner.task < 1 or state.learner.step < 2:
        ours.step(state, 0.0)
    learner = state.learner
    logits = torch.zeros(1, 10, requires_grad=True)
    old = state.stream.outputs[0][0]
    learner.losses(logits, torch.tensor([old]), torch.tensor([0])).sum().backward()
    assert (logits.grad[0, list(state.stream.outputs[1])] > 0).all()
    assert (logits.grad[0, list(state.stream.outputs[2])] == 0).all()
