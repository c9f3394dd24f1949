"""Experience replay: its loss, what it keeps, and what that does against forgetting."""

import pytest
import torch
import torch.nn.functional as F

from engram.backbone.errors import UserError
from engram.continual.experiment.configs import StreamConfig

OPTIONS = [
    {},
    {"er.selection": "balanced"},
    {"er.selection": "random", "er.weighting": "tasks"},
    {"er.selection": "herding"},
    {"er.weighting": "tasks"},
    {"er.copies": True},
]
DIGITS = {"scenario": "class", "lr": 5e-3, "buffer": 120}


class Recorder:
    """Looks over a strategy's shoulder: batches and losses of every step."""

    def __init__(self, monkeypatch, strategy):
        self.seen = []
        original = strategy.loss

        def loss(learner, batch, value):
            found = original(learner, batch, value)
            self.seen.append((learner.task, batch.own, batch.logits.detach(), batch.labels, found.detach()))
            return found

        monkeypatch.setattr(strategy, "loss", loss)


@pytest.mark.parametrize("options", OPTIONS)
def test_replay_halves_what_finetuning_forgets(learned, options):
    nothing, replayed = learned("finetune", **DIGITS), learned("er", strategies_options=options, **DIGITS)
    assert replayed.accuracy > nothing.accuracy + 0.25
    assert replayed.metrics["test/forgetting"] < nothing.metrics["test/forgetting"] / 2
    assert replayed.metrics["stored_samples"] == 120 or options.get("er.copies")


@pytest.mark.parametrize("scenario", ["task", "domain", "permuted", "online", "blurry", "task-free"])
def test_it_works_in_every_scenario(learn, scenario):
    once = {"epochs": None} if scenario in ("online", "task-free") else {"epochs": 2}
    run = learn("er", **{**DIGITS, "scenario": scenario, **once})
    assert run.strategies[0].stored()["labels"].max() < run.state.stream.width


@pytest.mark.parametrize("weighting", ["rows", "tasks"])
def test_the_loss_is_the_weighted_mean(experiment, monkeypatch, weighting):
    options = {"er.weighting": weighting, "er.replay_batch": 20, "er.copies": True}  # full from the first step on
    ours = experiment("er", strategies_options=options, **DIGITS)
    state = ours.start()
    record = Recorder(monkeypatch, state.strategies[0])
    while ours.step(state):
        pass
    replayed = 0
    for task, own, logits, labels, loss in record.seen:
        each = F.cross_entropy(logits, labels, reduction="none")
        expected = each.mean()
        if weighting == "tasks" and len(each) > own:
            expected = each[:own].mean() / (task + 1) + each[own:].mean() * task / (task + 1)
        torch.testing.assert_close(loss, expected)
        assert len(labels) in (own, own + 20)
        replayed += len(labels) - own
    steps = len(record.seen)
    assert sum(own for _, own, *_ in record.seen) == ours.config.epochs * len(state.stream.data.train)
    assert replayed == 20 * (steps - 1 if weighting == "rows" else steps - sum(s[0] == 0 for s in record.seen))


def test_the_buffer_is_a_fair_sample_of_the_stream(learn):
    kept = learn("er", scenario="class", buffer=300, epochs=1).strategies[0].stored()
    shares = torch.bincount(kept["tasks"], minlength=3) / 300
    assert ((shares - torch.tensor([0.4, 0.3, 0.3])).abs() < 0.09).all()


def test_strategies_that_keep_images_share_the_buffer(learn):
    run = learn("er", "derpp", "er-ace", scenario="class", buffer=50, epochs=1)
    assert [strategy.samples() for strategy in run.strategies] == [17, 17, 16]
    assert run.metrics["stored_samples"] == 50


def test_a_share_of_the_buffer_may_be_too_small():
    def problem(*names, buffer):
        strategies = tuple(f"continual.{name}" for name in names)
        return StreamConfig.resolve({"strategies": strategies, "buffer": buffer, "scenario": "task"}).problems()

    assert not problem("agem", "er", buffer=10) and not problem("er", "der", buffer=2)
    assert problem("agem", "er", buffer=9) == [
        "--buffer must be at least 10 for agem, one for each task of 2 strategies; got 9. Raise it."
    ]
    (said,) = problem("er", "der", buffer=1)
    assert said == "--buffer must be at least 2, one for each of 2 strategies; got 1. Raise it."


def test_the_share_that_is_too_small_is_named(experiment):
    options = {"scenario": "permuted", "buffer": 40, "strategies_options": {"er.selection": "random"}}
    with pytest.raises(UserError, match=r"the share of --buffer that er has must be at least 30 for er"):
        experiment("er", "der", **options).start()


def test_a_balanced_buffer_holds_equal_shares(learn):
    kept = learn("er", scenario="class", buffer=100, strategies_options={"er.selection": "balanced"}).strategies[0]
    assert (torch.bincount(kept.stored()["labels"]) - 10).abs().max() <= 1


def test_a_herded_buffer_holds_images_of_the_tasks_so_far(learn):
    run = learn("er", scenario="class", buffer=95, epochs=1, strategies_options={"er.selection": "herding"})
    kept, stream = run.strategies[0].stored(), run.state.stream
    assert torch.bincount(kept["labels"]).sum() == 95 and torch.bincount(kept["labels"]).min() == 9
    for label, task in zip(kept["labels"].tolist(), kept["tasks"].tolist(), strict=True):
        assert label in stream.outputs[task]
    first = stream.task(0).train.images.flatten(1)
    mine = kept["images"][kept["tasks"] == 0].flatten(1)
    assert all((first == image).all(1).any() for image in mine)


def test_a_drawn_buffer_has_the_same_room_for_every_class_from_the_first_task_on(experiment):
    ours = experiment("er", scenario="class", buffer=95, epochs=1, strategies_options={"er.selection": "random"})
    state = ours.start()
    while state.learner.task < 2 or state.learner.step < 5:
        ours.step(state, 0.0)
        kept, task = state.strategies[0].stored(), state.learner.task
        if not state.learner.done:
            assert set(kept["tasks"].tolist()) == set(range(task))  # only earlier tasks are replayed
            assert kept["labels"].bincount().unique().tolist() in ([], [9], [0, 9])
    first = state.stream.task(0).train.images.flatten(1)
    mine = kept["images"][kept["tasks"] == 0].flatten(1)
    assert all((first == image).all(1).any() for image in mine) and len(mine.unique(dim=0)) == len(mine)


@pytest.mark.parametrize("copies", [False, True])
def test_nothing_is_replayed_without_anything_kept(experiment, copies):
    ours = experiment("er", strategies_options={"er.copies": copies}, **DIGITS)
    state = ours.start()
    ours.step(state, 0.0)
    assert len(state.strategies[0].buffer) == 32 if copies else 0 < len(state.strategies[0].buffer) < 20  # of 5 passes
    kept = state.strategies[0].stored()
    raw = state.stream.task(0).train.images
    assert all((raw == image).flatten(1).all(1).any() for image in kept["images"][:5])  # as it was, not normalised


@pytest.mark.parametrize("strategy", ["er", "der", pytest.param("er-ace", marks=pytest.mark.slow)])
def test_every_image_is_kept_once_and_copies_are_not_counted(learn, strategy):
    small = {"scenario": "class", "epochs": 4, "buffer": 1500}
    once = learn(strategy, **small)
    kept = once.strategies[0].stored()
    assert once.metrics["stored_samples"] == len(kept["labels"]) == len(kept["images"].unique(dim=0)) == 1438
    copies = learn(strategy, strategies_options={f"{strategy}.copies": True}, **small)
    assert len(copies.strategies[0].stored()["labels"]) == 1500 and 1000 < copies.metrics["stored_samples"] < 1300


def test_with_batch_normalisation_nothing_is_replayed_before_there_are_two_rows(learn):
    norm = {"backbone_options": {"width": 0.25, "normalisation": "batch"}, "epochs": 20, "tasks": 2, "batch_size": 3}
    run = learn("derpp", **{**norm, "epochs": None, "iterations": 40})
    assert torch.isfinite(run.weights()).all() and run.metrics["stored_samples"] > 2


def test_rows_of_other_tasks_choose_among_their_own_outputs(learn):
    once = {**DIGITS, "scenario": "task", "head": "multi"}
    assert learn("er", **once).accuracy > learn("finetune", **once).accuracy


@pytest.mark.parametrize("options", OPTIONS)
def test_a_run_that_was_broken_off_ends_with_the_same_weights(learned, resume, options):
    whole = learned("er", strategies_options=options, **DIGITS)
    for steps in (100,) if options else (100, 45):
        broken = resume(steps, "er", strategies_options=options, **DIGITS)
        assert torch.equal(whole.weights(), broken.weights())
        assert str(whole.result.tables) == str(broken.result.tables)
    assert torch.equal(whole.strategies[0].stored()["images"], broken.strategies[0].stored()["images"])


def test_spiking_networks_and_half_precision(learn):
    small = {**DIGITS, "epochs": None, "iterations": 6}
    spiking = learn("er", adapter="snn.spiking", adapter_options={"steps": 2}, **small)
    half = learn("er", precision="bf16", **small)
    for run in (spiking, half):
        assert torch.isfinite(run.weights()).all()
    assert not torch.equal(half.weights(), learn("er", **small).weights())
    plain = learn("finetune", adapter="snn.spiking", adapter_options={"steps": 2}, **small)
    assert not torch.equal(spiking.weights(), plain.weights())


def test_copies_are_of_images_that_come_by():
    config = StreamConfig.resolve(
        {"strategies": ("continual.er",), "strategies_options": {"er.selection": "random", "er.copies": True}}
    )
    (problem,) = config.problems()
    assert problem.startswith("--strategies.er.copies must be left out where images are chosen at the end of a task;")


def test_every_class_must_have_a_herded_image(learn):
    herding = {"er.selection": "herding"}
    with pytest.raises(UserError, match="--buffer must be at least 30 for er, an image of every class of every task"):
        learn("er", scenario="permuted", buffer=29, epochs=1, strategies_options=herding)
