"""Strengths that are chosen on the first tasks: by which images, among what, and what the run says of it."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from engram.backbone.data.load import load
from engram.backbone.errors import UserError
from engram.continual.experiment.candidates import Tried, best, upcoming
from engram.continual.experiment.configs import StreamConfig
from engram.continual.experiment.testing import test as score

AUTO = {"si.c": "auto", "ewc.strength": "auto", "mas.strength": "auto"}
SHORT = {"scenario": "permuted", "tasks": 3, "cross_validation_tasks": 2, "epochs": None, "iterations": 8, "lr": 0.01}


def automatic(*strategies):
    return {key: value for key, value in AUTO.items() if key.partition(".")[0] in strategies}


def rows(run, option):
    return [row for row in run.result.tables["choice of strength"] if row["option"] == option]


def search(accuracy, effect, decades=(1.0, 10.0, 100.0)):
    """All strengths that are tried where accuracy and effect are known functions of them."""
    tried = []
    while (strength := upcoming(tried, decades)) is not None:
        tried.append(Tried(strength, accuracy(strength), effect(strength)))
    return [each.strength for each in tried], best(tried, 100).strength


def hill(top):
    return lambda strength: 0.9 - 0.1 * abs(math.log10(strength) - top) if strength else 0.3


@pytest.mark.parametrize(
    ("top", "tried"), [(1, [0, 1, 10, 100]), (3, [0, 1, 10, 100, 1e3, 1e4]), (-1, [0, 1, 10, 100, 0.1, 0.01])]
)
def test_decades_follow_the_best_one_beyond_both_ends(top, tried):
    assert search(hill(top), lambda strength: 0.1) == (pytest.approx(tried), pytest.approx(10.0**top))


def test_what_has_no_effect_yet_is_raised_and_what_has_none_any_more_is_not_lowered():
    assert search(lambda s: 0.5, lambda s: s / 1e5) == (pytest.approx([0, 1, 10, 100, 1e3]), 1.0)


def test_the_search_ends_where_more_is_always_better_and_where_the_loss_is_not_finite():
    assert max(search(lambda s: 1 - 1 / (s + 2), lambda s: 0.1)[0]) == 1e7
    tried, chosen = search(lambda s: math.nan if s > 10 else 0.1 * s, lambda s: None if s > 10 else 0.1)
    assert (tried, chosen) == ([0, 1, 10, 100], 10)


def test_the_strength_is_chosen_and_the_stream_learned_as_with_that_one(learn, learned):
    chosen = learned("si", **SHORT, strategies_options=automatic("si"))
    (strength,) = [row["strength"] for row in rows(chosen, "si.c") if row["chosen"]]
    assert chosen.metrics["strength/si"] == strength
    given = learn("si", **SHORT, strategies_options={"si.c": strength})
    assert torch.equal(chosen.weights(), given.weights())
    assert chosen.result.tables["accuracy"] == given.result.tables["accuracy"]
    assert chosen.metrics["choosing_seconds"] > 0 and "choosing_seconds" not in given.metrics
    assert any("learned afresh" in row["caution"] for row in chosen.result.tables["cautions"])


@pytest.mark.parametrize("strategy", ["si", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ewc", "mas"))])
def test_a_candidate_is_what_a_run_of_its_own_scores_on_held_out_images(learn, experiment, strategy):
    held = {**SHORT, "validation": 0.2}
    chosen = learn(strategy, **held, strategies_options=automatic(strategy))
    (option,) = automatic(strategy)
    for row in rows(chosen, option)[2:4]:
        ours = experiment(strategy, **held, strategies_options={option: row["strength"]})
        state = ours.start()
        while not (state.learner.task == 1 and state.learner.done):
            ours.step(state)
        parts = [state.stream.part(task, "validation") for task in range(2)]
        each = [score(state.learner, split, task).accuracy for task, split in enumerate(parts)]
        assert row["validation accuracy"] == pytest.approx(math.fsum(each) / 2, abs=1e-12)
        assert row["penalty's gradient over the loss's"] == state.strategies[0].effect()


def test_images_to_test_on_have_no_say(learn, monkeypatch):
    options = {**SHORT, "strategies_options": automatic("ewc")}
    before = learn("ewc", **options)

    def other(*args, **kwargs):
        data = load(*args, **kwargs)
        data.test.labels.copy_(data.test.labels.flip(0))
        return data

    monkeypatch.setattr("engram.continual.experiment.experiment.load", other)
    after = learn("ewc", **options)
    assert before.result.tables["choice of strength"] == after.result.tables["choice of strength"]
    assert before.accuracy != after.accuracy


def test_all_images_are_trained_on_once_the_strength_is_known(learned):
    chosen = learned("si", **SHORT, strategies_options=automatic("si"))
    assert len(chosen.state.stream.task(0).train) == 1438


# in the first task, at its end, in the second task of the first candidate and of a later one, and in the stream itself
@pytest.mark.parametrize(
    ("strategy", "steps"),
    [
        pytest.param("si", 3, marks=pytest.mark.slow),
        ("si", 8),
        pytest.param("si", 13, marks=pytest.mark.slow),
        ("ewc", 27),
        pytest.param("si", 70, marks=pytest.mark.slow),
    ],
)
def test_a_choice_that_was_broken_off_goes_on_bit_for_bit(learned, resume, strategy, steps):
    options = {**SHORT, "strategies_options": automatic(strategy)}
    whole, broken = learned(strategy, **options), resume(steps, strategy, **options)
    assert torch.equal(whole.weights(), broken.weights())
    assert str(whole.result.tables) == str(broken.result.tables)


def test_strengths_of_several_strategies_are_chosen_in_turn(learn, resume):
    options = {**SHORT, "scenario": "task", "buffer": 30, "strategies_options": automatic("si", "ewc")}
    whole = learn("ewc", "si", "er", **options)
    assert {row["option"] for row in whole.result.tables["choice of strength"]} == {"si.c", "ewc.strength"}
    assert {"strength/si", "strength/ewc"} <= set(whole.metrics)
    assert torch.equal(whole.weights(), resume(75, "ewc", "si", "er", **options).weights())


def test_one_of_them_may_be_given(learn):
    run = learn("ewc", "si", **SHORT, strategies_options={"si.c": "auto", "ewc.strength": 3.0})
    assert {row["option"] for row in run.result.tables["choice of strength"]} == {"si.c"}
    assert [row["strength"] for row in run.result.tables["penalties"]] == [run.metrics["strength/si"], 3.0]


def test_it_is_seen_while_it_is_made(experiment):
    ours, said = experiment("si", **SHORT, strategies_options=automatic("si")), []
    ours.services.progress = lambda done, total, text="": said.append((done, total, text))
    state = ours.start()
    while ours.step(state, 0.0):
        pass
    assert said[0][2].startswith("choosing the strength of si, 0: task 1 of 2")
    assert said[-1] == (said[-1][1], said[-1][1], "task 3 of 3")
    assert all(before[0] <= after[0] <= after[1] for before, after in pairwise(said))
    (table,) = [rows for title, rows in ours.services.tables if title == "choice of strength"]
    logged = [found for _, found in ours.services.logged if "choice/si.c" in found]
    assert [(row["strength"], row["validation accuracy"]) for row in table] == sorted(
        (found["choice/si.c"], found["choice/si.c/validation/average_accuracy"]) for found in logged
    )


def test_a_single_task_has_nothing_to_hold_on_to(learn):
    run = learn("si", tasks=1, epochs=1, strategies_options=automatic("si"))
    assert run.metrics["strength/si"] == 0.0 and torch.equal(
        run.weights(), learn("finetune", tasks=1, epochs=1).weights()
    )


def test_too_few_images_to_choose_by(experiment, monkeypatch):
    def few(*args, **kwargs):
        data = load(*args, **kwargs)
        first = torch.cat([(data.train.labels == label).nonzero()[: 2 if label == 4 else 9, 0] for label in range(10)])
        return replace(data, train=data.train.select(first))

    monkeypatch.setattr("engram.continual.experiment.experiment.load", few)
    with pytest.raises(UserError, match=r"no image to choose it by, as '4'; got auto. Give --strategies.si.c one, or"):
        experiment("si", **SHORT, strategies_options=automatic("si")).start()


def test_what_has_no_meaning_makes_no_other_trial():
    plain = StreamConfig.resolve({"strategies": ("continual.er",)})
    assert StreamConfig.resolve({"strategies": ("continual.er",), "cross_validation_tasks": 2}) == plain
    chosen = StreamConfig.resolve({"strategies": ("continual.si",), "cross_validation_tasks": 4, "tasks": 2})
    assert (
        chosen
        == StreamConfig.resolve({"strategies": ("continual.si",), "tasks": 2})
        == StreamConfig.resolve(vars(chosen))
    )


def test_a_penalty_that_changed_nothing_says_so(learn):
    def cautions(strength):
        tables = learn("si", **SHORT, strategies_options={"si.c": strength}).result.tables
        return [row["caution"] for row in tables.get("cautions", ())]

    (said,) = cautions(1e-4)
    assert said.startswith("si changed nothing measurable: the gradients of its penalty came to 0.0")
    assert cautions(0.0) and not cautions(100.0)


@pytest.mark.parametrize("strategy", ["si", pytest.param("mas", marks=pytest.mark.slow)])
def test_chosen_strengths_are_better_than_none(learn, strategy):
    options = {"scenario": "permuted", "cross_validation_tasks": 2, "epochs": 3, "seed": 5, "lr": 3e-3}
    chosen = learn(strategy, **options, strategies_options=automatic(strategy))
    assert chosen.accuracy > learn("finetune", **options).accuracy + 0.05
