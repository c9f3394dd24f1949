"""What cannot be is refused when a trial is planned, all of it at once, and before anything is trained."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from engram.backbone.errors import UserError
from engram.backbone.registry import Registry
from engram.benchmarks.driving.data_checks import check_data
from engram.benchmarks.driving.driver import RunSetting
from engram.benchmarks.planning.plan import Planner
from engram.benchmarks.records.identity import DataSets

SHIFT = {"dataset": "coloured-digits:domainbed"}


@pytest.fixture
def planner(tmp_path):
    registry = Registry.discover()
    return Planner(registry, tmp_path, DataSets(registry, tmp_path))


def refused(planner, experiment, **given):
    with pytest.raises(UserError) as error:
        planner.add(experiment, given)
    return str(error.value).splitlines()


def named(name, pictures=6):
    """Writes pictures of two classes, whose names begin with the places they are of."""
    for label in ("cat", "dog"):
        (name / label).mkdir(parents=True)
        for number in range(pictures):
            place = ("east", "west", "10", "9")[number % 2 + 2 * name.name.startswith("numbers")]
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(name / label / f"{place}-{number}.png")
    return f"folder:{name}"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"objective": "dfr"}, ["--dataset must be one with a column 'group'; got columns: none."]),
        (
            {"objective": "dfr", "validation": 0.0, "head": "cosine", "tet": 0.1, "dataset": "digits"},
            [
                "--objective must be one that others can be put around, as it is with --tet; got dfr.",
                "--validation must be above 0 for dfr, which looks at images that its network was not trained on",
                "the head for the objective dfr must be a linear layer; got cosine. Use --head linear.",
                "--dataset must be one with a column 'group'; got columns: none.",
            ],
        ),
        ({"objective": "afr", "objective_options": {"gamma": 4.0, "l2": 0.1}}, []),
        ({"objective": "afr", "objective_options": {"gamma": 4.0}}, ["--dataset must be one with a column 'group'"]),
        (
            {"objective": "groupdro", "objective_options": {"column": "rim"}},
            ["--dataset must be one with a column 'rim'"],
        ),
        (
            {"objective": "lff", "teacher": None, "discount": 0.5},
            ["--objective must be one that others can be put around"],
        ),
        (
            {"objective": "jtt", "tet": 0.1, "discount": 0.5},
            [],
        ),
        (
            {"objective": "eiil", "objective_options": {"then": "groupdro", "penalty": 3.0}, "discount": 0.5},
            [
                "--objective.penalty must be left out beside --objective.then groupdro",
                "the objective beside --discount must be a mean of losses of rows; got eiil",
            ],
        ),
        (
            {"objective": "coral", "tet": 0.1, **SHIFT},
            ["the objective beside --tet must be one that looks at logits alone; got coral, which wants features."],
        ),
        (
            {"objective": "feedback.reconstruction"},
            [
                "the network for the objective feedback.reconstruction must be Predicting; got lenet5, which makes "
                "none that is. Use --adapter feedback.predictive, behind all others."
            ],
        ),
        ({"objective": "feedback.reconstruction", "adapter": ("feedback.predictive",)}, []),
        (
            {"objective": "complementary", "adapter": ("causal.counterfactual-attention",)},
            ["the network for the objective complementary must be Complementary; got causal.counterfactual-attention"],
        ),
        (
            {"objective": "concepts", "dataset": "concept-shapes"},
            ["the head for the objective concepts must be Conceptual; got linear. Use --head causal.concept-bottle"],
        ),
        (
            {"objective": "frontdoor", "head": "causal.backdoor", "dataset": "shapes-scm"},
            [
                "the head for the objective frontdoor must be one that tells likelihoods given the column 'mediator'; "
                "got causal.backdoor. Use --head causal.frontdoor.",
                "--dataset must be one with a column 'mediator'; got columns: shape, background, foreground, context",
            ],
        ),
        (
            {"head": "causal.backdoor", "dataset": "shapes-scm"},
            [
                "--objective must be one that trains causal.backdoor by likelihoods given the column 'context': else "
                "its answers are P(y | x); got cross-entropy. Use --objective backdoor, or another --head."
            ],
        ),
        ({"head": "causal.backdoor", "dataset": "shapes-scm", "objective": "backdoor"}, []),
    ],
)
def test_an_objective_without_what_it_asks_for_is_refused_with_all_of_that(planner, given, said):
    if not said:
        assert planner.add("backbone.train", {"dataset": "digits", **given})
        return
    found = refused(planner, "backbone.train", **{"dataset": "digits", **given})
    assert len(found) == len(said) and all(line.startswith(each) for line, each in zip(found, said, strict=True)), found
    assert not planner.trials


def test_validation_images_of_the_data_themselves_are_not_looked_at_without_a_share(planner):
    """0 trains on all of them, or leaves the data's own aside."""
    own = {"dataset": "biased:digits", "dataset_options": {"unbiased_validation": 0.2}, "objective": "dfr"}
    (line,) = refused(planner, "backbone.train", **own, validation=0.0)
    assert line.startswith("--validation must be above 0 for dfr")
    assert planner.add("backbone.train", own)


def test_streams_and_experiments_without_a_first_network_refuse_what_begins_from_one(planner):
    said = "--objective must be one that begins from no other network, in an experiment that trains none; got jtt."
    for experiment, more in (("continual.stream", {}), ("fewshot.incremental", {"ways": 2})):
        assert refused(planner, experiment, objective="jtt", dataset="digits", **more)[0].startswith(said)
    (line,) = refused(planner, "continual.stream", objective="lff", dataset="digits")
    assert line.startswith("--objective must be one that others can be put around, as it is with streams; got lff.")
    (line,) = refused(planner, "continual.stream", objective="irm", strategies=("er",), **SHIFT, tasks=2)
    assert line.startswith("--objective must be one that needs no column of the data beside er")


def test_answers_that_are_compared_with_the_truth_may_be_confounded(planner):
    assert planner.add("causal.scm", {"estimator": "averaged"}).config["objective"] == "cross-entropy"
    assert planner.add("causal.scm", {"head": "causal.backdoor", "objective": "cross-entropy"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"held_out": ("+70%",)},
            "--held-out must be environments of the data (+80%, +90%, -90%); got +70%. Did you mean",
        ),
        ({"held_out": ("+90%", "+80%", "-90%")}, "--held-out must be some of the environments, so that one is left"),
        (
            {"held_out": ("-90%",), "leave_out": ("+90%",), "selection": "loo"},
            "--leave-out must be all environments that are trained on (+80%, +90%); got +90%, without +80%. Name these",
        ),
        (
            {"held_out": ("-90%",), "leave_out": ("+90%", "+80%", "x"), "selection": "loo"},
            "--leave-out must be environments that are trained on (+80%, +90%); got x. Correct it.",
        ),
        (
            {"dataset": "coloured-digits:irm", "leave_out": ("e=0.9",), "selection": "loo"},
            "--leave-out must be environments that are trained on (e=0.1, e=0.2); got e=0.9.",
        ),
        ({"dataset": "digits"}, "--dataset must be one with a column 'environment' or 'group'; got columns: none. Say"),
        (
            {"dataset": "biased:digits", "held_out": ("red",)},
            "--dataset beside --held-out must be one with a column 'environment'; got columns: colour, group, foregro",
        ),
    ],
)
def test_environments_that_the_data_do_not_have_are_refused(planner, given, said):
    (line,) = refused(planner, "causal.shift", **{**SHIFT, **given})
    assert line.startswith(said), line
    assert not planner.trials


def test_environments_of_a_folder_are_those_in_names_of_its_files(planner, tmp_path):
    pictures = {"dataset": named(tmp_path / "places"), "dataset_options": {"name_pattern": "(?P<place>[a-z]+)-"}}
    (line,) = refused(planner, "causal.shift", **pictures)
    assert line.startswith("--dataset must be one with a column 'environment' or 'group'; got columns: place.")
    pictures["dataset_options"]["environment"] = "place"
    (line,) = refused(planner, "causal.shift", **pictures, held_out=("north",))
    assert line.startswith("--held-out must be environments of the data (east, west); got north.")
    assert planner.add("causal.shift", {**pictures, "held_out": ("east",)})
    options = {"name_pattern": "(?P<ward>[0-9]+)-", "environment": "ward"}
    (line,) = refused(
        planner, "causal.shift", dataset=named(tmp_path / "numbers"), dataset_options=options, held_out=("1",)
    )
    assert line.startswith("--held-out must be environments of the data (9, 10); got 1.")


def test_concepts_must_be_columns_of_the_data(planner):
    (line,) = refused(planner, "causal.concepts", dataset="digits")
    assert line.startswith("--dataset must be one with a column 'concepts'; got columns: none.")
    found = refused(planner, "causal.concepts", dataset="biased:digits", concepts="colour,wing,beak")
    assert [line.partition("; columns")[0] for line in found] == [
        f"--concepts must be columns of the data; got '{name}'" for name in ("wing", "beak")
    ]


def test_an_experiment_says_what_it_lacks_before_anything_starts(planner, tmp_path, monkeypatch):
    trial = planner.add("backbone.train", {"dataset": "digits", "epochs": 1})
    explain = replace(trial, experiment="causal.explain", id="0" * 16, folder=tmp_path / "trials" / "none", config={})
    how = RunSetting(out=tmp_path, data_root=tmp_path, argv=["run"])
    check_data([trial, explain], planner.registry, how)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "engram.causal.explaining.configs.find_spec", lambda name: None if name == "captum" else found(name)
    )
    check_data([trial], planner.registry, how)
    with pytest.raises(UserError, match=r"causal.explain must have captum; got none. pip install 'engram\[explain\]'"):
        check_data([trial, explain], planner.registry, how)
