"""Training on some environments and testing on others: divisions, scores by group, policies and the choice by them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engram.backbone.contract import Finished
from engram.backbone.data.load import Data, normalisation
from engram.backbone.data.sets import MemorySplit
from engram.backbone.data.trained import load_as_trained
from engram.backbone.errors import UserError
from engram.backbone.measures.scoring import score
from engram.backbone.registry import Registry
from engram.backbone.saved.model import load_model
from engram.backbone.tables import as_csv
from engram.backbone.testing.workshop import Workshop
from engram.backbone.training.samplers import Balanced, Uniform
from engram.causal.shift.answered import Answered, adjusted, mean_of, worst
from engram.causal.shift.configs import ShiftConfig
from engram.causal.shift.environments import Division, divide, view
from engram.causal.shift.policies import chosen, left_out, table
from engram.causal.shift.search import drawn
from engram.causal.shift.selecting import AVERAGE, choose, long, markdown
from engram.causal.shift.stretches import Stretches

PLACES = ("north", "south", "west")
DIGITS = {"dataset": "coloured-digits:domainbed", "dataset_options": {"environment_images": 60}}
SMALL = {"backbone": "mlp", "backbone_options": {"units": 8, "depth": 1}, "epochs": 4, "batch_size": 32}


def split(count, start=0, places=PLACES):
    """Images that are their own number, in two classes and some environments, in turn."""
    numbers = torch.arange(start, start + count)
    images = numbers.to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 2, 2)
    columns = {"environment": tuple(places[i % len(places)] for i in range(count)), "number": numbers}
    return MemorySplit(images, numbers // 7 % 2, {**columns, "group": columns["environment"]})


def data(**changed):
    parts = {"train": split(60), "validation": split(30, 60), "test": split(30, 90)}
    mean, std = normalisation(parts["train"])
    return replace(
        Data("made", **parts, classes=("a", "b"), in_shape=(1, 2, 2), mean=mean, std=std, fingerprint="0"), **changed
    )


def numbers(part):
    return set(part.columns["number"].tolist())


def test_all_images_of_an_environment_are_tested_on_and_no_other():
    whole, found = data(), divide(data(), Division(("south",), 0.25))
    everything = numbers(whole.train) | numbers(whole.validation) | numbers(whole.test)
    south = {number for number in everything if number % 3 == 1}
    assert numbers(found.data.test) | numbers(found.oracle) == south
    assert len(found.oracle) == round(0.25 * len(south)) and not numbers(found.oracle) & numbers(found.data.test)
    assert numbers(found.data.train) == numbers(whole.train) - south
    assert numbers(found.data.validation) == numbers(whole.validation) - south
    assert numbers(found.seen) == numbers(whole.test) - south
    assert torch.equal(found.data.mean, normalisation(found.data.train)[0])
    again = view(data(), Division(("south",), 0.25).reference().options)
    assert numbers(again.test) == numbers(found.data.test)


def test_without_environments_held_out_the_test_images_stay():
    found = divide(data(), Division())
    assert (found.data, found.oracle, found.seen) == (found.data, None, None) and numbers(found.data.test) == numbers(
        data().test
    )
    assert Division().reference() is None


@pytest.mark.parametrize(
    ("held_out", "said"),
    [
        (("east",), r"--held-out must be environments of the data \(north, south, west\); got east\."),
        (PLACES, "so that one is left to train on; got north, south, west of north, south, west"),
    ],
)
def test_what_cannot_be_held_out_is_named(held_out, said):
    with pytest.raises(UserError, match=said):
        divide(data(), Division(held_out))


def test_a_class_that_is_in_no_other_environment_is_named():
    train = split(60)
    labels = torch.tensor([int(place == "west") for place in train.columns["environment"]])
    with pytest.raises(UserError, match="without which there is no b"):
        divide(data(train=MemorySplit(train.images, labels, train.columns)), Division(("west",)))


def test_data_without_the_column_are_refused():
    bare = MemorySplit(split(60).images, split(60).labels)
    with pytest.raises(
        UserError, match=r"--dataset beside --held-out must be one with a column 'environment'; got columns: none"
    ):
        divide(data(train=bare), Division(("west",)))


def test_scores_of_groups_against_sums():
    random = torch.Generator().manual_seed(0)
    part = split(60)
    right = torch.rand(60, generator=random) < 0.6
    found = Answered(part, right, 0.0).by("environment")
    for name in PLACES:
        rows = torch.tensor([place == name for place in part.columns["environment"]])
        assert (found[name].right, found[name].images) == (int(right[rows].sum()), int(rows.sum()))
    shares = [each.accuracy for each in found.values()]
    assert worst(found) == min(shares) and mean_of(found) == pytest.approx(sum(shares) / 3)
    assert adjusted(found, found) == pytest.approx(float(right.double().mean()))
    assert adjusted(found, {"east": found["west"]}) is None


def rows(scores, oracle, tested):
    keys = ("epoch", "validation/score", "oracle/accuracy", "test/accuracy")
    return [
        dict(zip(keys, (i, *each), strict=True)) for i, each in enumerate(zip(scores, oracle, tested, strict=True), 1)
    ]


def test_every_policy_goes_by_its_own_images():
    held = rows([0.8, 0.9, 0.9], [0.5, 0.6, 0.1], [0.55, 0.65, 0.2])
    others = {
        "a": [{"test/a/accuracy": x} for x in (0.9, 0.1, 0.2)],
        "b": [{"test/b/accuracy": x} for x in (0.5, 0.4, 0.4)],
    }
    without = left_out(others)
    assert without == pytest.approx([0.7, 0.25, 0.3])
    assert chosen(held, without) == {"train": 1, "loo": 0, "oracle": 2}
    told = {row["policy"]: (row["epoch"], row["selection_score"], row["test/accuracy"]) for row in table(held, without)}
    assert told == {"train": (2, 0.9, 0.65), "loo": (1, pytest.approx(0.7), 0.55), "oracle": (3, 0.1, 0.2)}
    assert chosen(held, None)["loo"] is None


def trial(name, seed, held, train, oracle, objective="irm"):
    told = [
        {"policy": "train", "selection_score": train[0], "test/accuracy": train[1]},
        {"policy": "loo", "selection_score": None, "test/accuracy": None},
        {"policy": "oracle", "selection_score": oracle[0], "test/accuracy": oracle[1]},
    ]
    options = {"objective": objective, "held-out": (held,), "seed": seed}
    return Finished(trial=name, experiment="causal.shift", options=options, metrics={}, tables={"policies": told})


def test_the_choice_is_made_in_every_seed_by_each_policy():
    trials = [
        trial("a", 0, "west", (0.9, 0.1), (0.2, 0.2)),
        trial("b", 0, "west", (0.8, 0.5), (0.6, 0.6)),
        trial("c", 1, "west", (0.7, 0.2), (0.1, 0.1)),
        trial("d", 1, "west", (0.9, 0.4), (0.3, 0.3)),
        trial("e", 0, "north", (0.9, 0.7), (0.7, 0.9)),
        trial("f", 1, "north", (0.9, 0.8), (0.7, 0.8)),
    ]
    found = {each.kind["held-out"]: each for each in choose(trials, ("objective", "held-out"), "test/accuracy")}
    assert found["west"].values("train") == {0: 0.1, 1: 0.4} and found["west"].trainings == 2
    assert found["west"].values("oracle") == {0: 0.6, 1: 0.3} and not found["west"].values("loo")
    assert [choice.trial for choice in found["west"].choices["oracle"].values()] == ["b", "d"]
    assert found[AVERAGE].values("train") == pytest.approx({0: 0.4, 1: 0.6})
    written = long(list(found.values()))
    west = next(row for row in written if row["held-out"] == "west" and row["policy"].startswith("oracle selection"))
    assert (west["mean"], west["seeds"], west["trials"]) == (pytest.approx(0.45), 2, "b d")
    assert "oracle selection (test environment)" in markdown(list(found.values()), "test/accuracy")
    assert as_csv(written).count("\n") == len(written) + 1


def test_there_is_no_mean_of_all_environments_where_one_was_never_held_out():
    of_three = [{"environment": name, "images are": "any"} for name in PLACES]
    two = [
        replace(made, tables={**made.tables, "environments": of_three})
        for made in (trial("a", 0, "west", (0.9, 0.1), (0.2, 0.2)), trial("b", 0, "north", (0.8, 0.5), (0.6, 0.6)))
    ]
    inside = trial("c", 0, "", (0.9, 0.9), (0.9, 0.9))
    inside = replace(inside, options={**inside.options, "held-out": ()})

    def means(trials):
        found = choose(trials, ("objective", "held-out"), "test/accuracy")
        return [each.values("oracle") for each in found if each.kind["held-out"] == AVERAGE]

    assert not means([*two, inside])
    south = trial("d", 0, "south", (0.7, 0.7), (0.7, 0.7))
    assert means([*two, south, inside]) == [{0: pytest.approx(0.5)}]


@pytest.mark.parametrize("passes", [Uniform(), Balanced("environment")])
def test_stretches_show_the_passes_one_after_another(passes):
    part, cut = split(60), Stretches(passes, 25)
    shown = torch.cat([cut.order(part, 3, number) for number in range(5)])
    whole = torch.cat([passes.order(part, 3, number) for number in range(3)])
    assert torch.equal(shown, whole[:125])


def test_the_search_draws_within_its_ranges_and_repeats():
    found = [drawn("irm", seed, number, 300) for seed in (0, 1) for number in range(1, 40)]
    assert found[0] == drawn("irm", 0, 1, 300) != drawn("irm", 1, 1, 300)
    for each in found:
        assert 10**-4.5 <= each["lr"] <= 10**-2.5 and 16 <= each["batch_size"] <= 1024
        options = each["objective_options"]
        late = options == {"penalty": 1.0, "anneal": 0, "divide": False}  # never in force in so short a training
        assert late or (0.1 <= options["penalty"] <= 1e5 and 1 <= options["anneal"] < 300 and not options["divide"])
    assert drawn("irm", 0, 0, 300)["objective_options"] == {"penalty": 1.0, "anneal": 0, "divide": False}
    own = {"draw": 0, "objective": "irm", "train_steps": 300, "objective_options": {"anneal": 9}}
    assert ShiftConfig.resolve(own).objective_options.items() >= {"penalty": 100.0, "anneal": 9}.items()
    given = ShiftConfig.resolve({"draw": 3, "lr": 0.5})
    assert (
        given.lr == 0.5
        and given.batch_size == drawn("cross-entropy", 0, 3)["batch_size"]
        and given.balance == "environment"
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"selection": "loo"}, r"--leave-out must be all environments that are trained on, beside --selection loo"),
        ({"validation": 0.0}, r"--validation must be above 0 for training-domain validation; got 0"),
        ({"selection": "oracle", "score": "worst_group"}, "--score must be left out beside --selection oracle"),
        ({"held_out": ("a", "a")}, "--held-out must be different environments"),
    ],
)
def test_what_does_not_go_together_is_said_while_planning(given, said):
    with pytest.raises(UserError, match=said):
        raise UserError("\n".join(ShiftConfig.resolve(given).problems()))


@pytest.mark.parametrize(("role", "flag"), [("trained", "--from"), ("reference", "--reference")])
def test_a_trial_of_what_was_trained_on_is_refused(role, flag):
    known = {role: {"dataset": "coloured-digits:domainbed", "backbone": "mlp"}}
    given = {"dataset": "coloured-digits:domainbed", "objective": "jtt", "reference": "x"}
    with pytest.raises(UserError, match=f"--held-out must be those of the trial beside {flag}"):
        ShiftConfig.resolve({**given, "held_out": ("-90%",)}, known)
    with pytest.raises(UserError, match=f"--leave-out must be left out beside {flag}"):
        ShiftConfig.resolve({**given, "leave_out": ("-90%",)}, known)
    known[role]["held_out"] = ["-90%"]
    assert ShiftConfig.resolve(given, known).held_out == ("-90%",)


def test_who_leaves_one_out_and_is_held_out_is_one_training():
    """Two environments are left out by one training, whichever of them is tested on."""
    options = {"leave_out": ("+90%", "+80%", "-90%")}
    one, other = (ShiftConfig.resolve({**options, "held_out": (name,)}) for name in ("-90%", "+80%"))
    assert one.leave_out == ("+80%", "+90%")
    assert one.requires()["left_out_1"] == other.requires()["left_out_2"]


def test_a_drawn_batch_has_as_many_images_of_every_environment_where_one_is_left_out():
    given = {"leave_out": ("+90%", "+80%", "-90%"), "held_out": ("-90%",), "train_steps": 9, "draw": 0}
    drawn_one = ShiftConfig.resolve(given)
    assert drawn_one.batch_size == 128
    assert {each.config.batch_size for each in drawn_one.requires().values()} == {64}


@pytest.fixture(scope="module")
def shop():
    torch.set_num_threads(1)
    return Workshop(Registry.discover())


def ran(shop, **chosen):
    return shop.run("causal.shift", **DIGITS, **SMALL, held_out=("-90%",), **chosen)


def test_policies_stand_side_by_side_and_the_chosen_network_is_kept(shop):
    found = ran(shop, selection="loo", leave_out=("+80%", "+90%"), oracle_share=0.25)
    policies = {row["policy"]: row for row in found.result.tables["policies"]}
    evaluations = found.result.tables["evaluations"]
    assert len(evaluations) == 4 and policies["oracle"]["epoch"] == 4
    mine = next(row for row in evaluations if row["epoch"] == policies["loo"]["epoch"])
    assert found.result.metrics["test/accuracy"] == mine["test/accuracy"] == policies["loo"]["test/accuracy"]
    model, made = load_model(found.folder / "model")
    again, outputs = load_as_trained(made, root=found.folder, download=False)
    assert score(model, again.test, "cpu", targets=outputs)["accuracy"] == mine["test/accuracy"]
    held = {row["images are"] for row in found.result.tables["environments"] if row["environment"] == "-90%"}
    assert held == {"tested on", "for oracle selection"}
    assert found.result.metrics["test/-90%/accuracy"] == mine["test/accuracy"]
    assert {row["group"] for row in found.result.tables["groups"]} > {"all"}


def test_a_network_goes_on_with_the_images_it_saw(shop):
    first = ran(shop, selection="oracle", validation=0.2)
    after = shop.run("causal.shift", **{"from": str(first.folder)})
    assert after.config.held_out == ("-90%",) and after.config.oracle_share == first.config.oracle_share
    images = [
        [(row["environment"], row["images are"], row["images"]) for row in each.result.tables["environments"]]
        for each in (first, after)
    ]
    assert images[0] == images[1]


def test_a_training_of_so_many_steps(shop):
    small = {name: value for name, value in SMALL.items() if name != "epochs"}
    config = ShiftConfig.resolve({**DIGITS, **small, "held_out": ("-90%",), "train_steps": 7, "evaluations": 3})
    found = shop.finished("causal.shift", config, {})
    assert len(found.result.tables["evaluations"]) == config.epochs == 3
    with pytest.raises(UserError, match="--epochs must be left out beside --train-steps"):
        ShiftConfig.resolve({"train_steps": 7, "epochs": 3})


def test_one_of_all_environments_must_be_left_out(shop):
    with pytest.raises(UserError, match=r"--leave-out must be all environments that are trained on \(\+80%, \+90%\)"):
        ran(shop, leave_out=("+80%",))
