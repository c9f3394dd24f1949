"""What we offer passes the kit that we ship, and what of it is refused is declared here."""

from __future__ import annotations

from unittest import SkipTest

import pytest
import torch
from torch import nn

from engram.backbone.contract import KINDS, Asks, Entry, Objective
from engram.backbone.data.sets import MemorySplit, Source
from engram.backbone.testing import Refusal, cases, datasets, heads, networks, objectives
from engram.backbone.testing.samples import NETWORKS
from engram.causal.plugin import PLUGIN

WITHOUT_MEMORY = ("feedback.predictive", "feedback.equilibrium", "feedback.generative")
"""Kinds of feedback that are put around no spiking network."""
BOUND = (*WITHOUT_MEMORY, "feedback.blt", "feedback.lateral")
"""Those that are put around no other network than theirs."""
FEEDBACK = ("feedback.gated", "feedback.additive", *BOUND)
WITHOUT_PREDICTIONS = (
    *(name for name in FEEDBACK if name != "feedback.predictive"),
    *("snn.qcfs", "snn.spiking", "linear", "cosine", "logistic", "fewshot.prototype"),
    *("causal.counterfactual-attention", "causal.complementary", "causal.concept-bottleneck"),
    *("causal.backdoor", "causal.frontdoor"),
)
"""Adapters, and heads that are tried on plain networks: what they make predicts none of its stages."""
EXPERIMENTS = ("feedback.robustness", "feedback.control")
"""Of feedback, those that are told an objective."""
TRAINING = ("backbone.train", "causal.shift", "snn.convert", "snn.train", "fewshot.incremental", *EXPERIMENTS)
COMPARING = ("irm", "vrex", "coral", "mmd", "groupdro", "reweight")
"""Objectives of the labels, by environment or group."""
ADJUSTING, ADJUSTED = ("causal.backdoor", "causal.frontdoor"), ("backdoor", "frontdoor")
"""Heads that average over a variable, and the objectives that each of them alone is trained by."""
LAST_LAYER = ("dfr", "afr")
"""Objectives that fit a trained network's linear head anew."""
AFTER = ("jtt", "eiil", *LAST_LAYER)
"""Objectives that begin from what a first network answers."""
OF_LABELS = ("feedback.reconstruction", *COMPARING, *AFTER, "lff")
"""Objectives that are none of which classes are in an image."""
ASKED = (*TRAINING, "continual.stream", "causal.shift")
"""Experiments that are told an objective, beside those of one kind of data."""
ATTENTION = {"counterfactual": "causal.counterfactual-attention", "complementary": "causal.complementary"}
"""What objectives of attention are for."""
BOTTLENECK, OTHER_HEADS = "causal.concept-bottleneck", ("linear", "cosine", "fewshot.prototype", "logistic", *ADJUSTING)
REFUSALS = [
    *(Refusal((name, "causal.shift"), "a column 'environment' or 'group'") for name in ("present", "frontdoor")),
    *(
        Refusal((name, objective), f"must be {objective.capitalize()}", without=(own,))
        for objective, own in ATTENTION.items()
        for name in (*FEEDBACK, "snn.qcfs", "snn.spiking", *ATTENTION.values(), *OTHER_HEADS, BOTTLENECK, *ASKED)
        if name != own
    ),
    Refusal(("causal.shift", "concepts"), "a column 'environment' or 'group'"),
    *(
        Refusal((name, "concepts"), "must be Conceptual")
        for name in (*FEEDBACK, "snn.qcfs", "snn.spiking", *ATTENTION.values(), *OTHER_HEADS, *ASKED)
    ),
    Refusal(("causal.concepts", "--from"), "must be 1x12x12 like those trained on", without=("snn.readout",)),
    Refusal(("causal.concepts", "feedback.generative"), "must be a linear layer"),
    *(Refusal(("causal.concepts", name), "must be Conceptual") for name in OTHER_HEADS),
    *(
        Refusal(("causal.concepts", name), "a column 'concepts'")
        for name in (
            *("cross-entropy", "feedback.reconstruction", "present", "lff"),
            *(*ATTENTION, *ADJUSTED, *COMPARING, *AFTER),
        )
    ),
    *(
        Refusal((name, "causal.attention", "--from"), "made with causal.counterfactual-attention")
        for name in WITHOUT_PREDICTIONS
        if name != ATTENTION["counterfactual"]
    ),
    Refusal(("feedback.predictive", "causal.attention", "--from"), "made with causal.counterfactual-attention"),
    *(Refusal((name, "snn.convert"), "every layer must be linear or a ReLU") for name in ATTENTION.values()),
    *(Refusal((name, "snn.deploy", "--from"), "every layer must be affine") for name in ATTENTION.values()),
    *(Refusal((name, "feedback.generative"), "a network for ") for name in ATTENTION.values()),  # in either order
    Refusal((BOTTLENECK, "feedback.generative"), "must be a linear layer"),
    Refusal((BOTTLENECK, "snn.convert", "--from"), "the read-out has to be linear"),
    *(Refusal((BOTTLENECK, name), "one with a linear form") for name in ("snn.convert", "snn.train")),
    Refusal((BOTTLENECK, "snn.deploy", "--from"), "the read-out has to be linear"),
    *(
        Refusal(("feedback.generative", name), "must be a linear layer")  # its weights go down as well
        for name in ("cosine", "logistic", "fewshot.prototype", "fewshot.enrol", "fewshot.incremental", *ADJUSTING)
    ),
    *(
        Refusal(("feedback.generative", name), "must be a linear layer", without=("--from",))
        for name in ("fewshot.episodes", "causal.scm")
    ),
    Refusal(("feedback.generative", "snn.qcfs"), "a network for "),  # in either order
    Refusal(("feedback.spoerer", "snn.convert"), "every layer must be linear or a ReLU"),  # it normalises by neighbours
    *(Refusal((name, "snn.convert"), "must be gated or additive") for name in BOUND),
    *(Refusal((name, "snn.spiking"), "a network for ") for name in WITHOUT_MEMORY),  # in either order
    *(Refusal((name, "snn.deploy", "--from"), "no neurons of a chip do") for name in FEEDBACK),
    *(Refusal((name, "feedback.reconstruction"), "must be Predicting") for name in WITHOUT_PREDICTIONS),
    *(Refusal((name, "feedback.mixing", "--from"), "made with feedback.predictive") for name in WITHOUT_PREDICTIONS),
    *(Refusal((name, "feedback.reconstruction"), "must be Predicting") for name in TRAINING),
    Refusal(("continual.stream", "feedback.reconstruction"), "one that looks at logits"),
    *(
        Refusal(("feedback.clutter", name), "a column 'present'")
        for name in ("cross-entropy", "irm", "vrex", "groupdro", "reweight", "jtt", "eiil")
    ),
    *(Refusal(("feedback.clutter", name), "one that others can be put around") for name in (*LAST_LAYER, "lff")),
    *(  # it puts --discount around them
        Refusal(("feedback.clutter", name), "one that looks at logits alone")
        for name in ("coral", "mmd", "feedback.reconstruction", *ATTENTION, *ADJUSTED, "concepts")
    ),
    *(Refusal(("feedback.generative", name), "whose features do not depend on the head") for name in LAST_LAYER),
    *(
        Refusal((head, name), "must be a linear layer")
        for head in ("cosine", "logistic", "fewshot.prototype", *ADJUSTING, BOTTLENECK)
        for name in LAST_LAYER
    ),
    Refusal(("causal.backdoor", "frontdoor"), "Add --head causal.frontdoor"),
    Refusal(("causal.frontdoor", "backdoor"), "Add --head causal.backdoor"),
    *(
        Refusal((name, objective), f"Add --head causal.{objective}")
        for name in (*WITHOUT_PREDICTIONS, "feedback.predictive", *TRAINING, "causal.scm")
        for objective in ADJUSTED
        if name not in ADJUSTING
    ),
    *(Refusal(("continual.stream", name), "--tasks must be at most 1 for 3 classes") for name in ADJUSTED),
    *(
        Refusal(("causal.scm", name), "must be shapes-scm")
        for name in ("cross-entropy", "present", *OF_LABELS, *ATTENTION, "concepts")
    ),
    *(
        Refusal((experiment, name), "in an experiment that trains none")
        for experiment in ("continual.stream", "fewshot.incremental")
        for name in AFTER
    ),
    Refusal(("continual.stream", "lff"), "one that others can be put around"),
    Refusal(("snn.spiking", "snn.convert"), "one without neurons so far"),
    Refusal(("snn.spiking", "snn.train"), "one without neurons so far"),
    *(
        Refusal((name, *experiment), reason)
        for name in ("cosine", *ADJUSTING)
        for experiment, reason in (
            (("snn.convert", "--from"), "the read-out has to be linear"),
            (("snn.convert",), "one with a linear form"),
            (("snn.train",), "one with a linear form"),
            (("snn.deploy", "--from"), "the read-out has to be linear"),
        )
    ),
    Refusal(("snn.qcfs", "snn.deploy", "--from"), "QCFS"),
    Refusal(("snn.readout", "fewshot.enrol"), "Spiking"),
    Refusal(("snn.readout", "fewshot.one-shot-runs"), "Spiking"),
    Refusal(("fewshot.maml", "fewshot.enrol"), "one that makes a classifier of labelled images"),
    Refusal(("fewshot.tim", "fewshot.enrol"), "one that makes a classifier of labelled images"),
    Refusal(("present", "continual.stream"), "a column 'present'"),  # its classes have other numbers
    Refusal(("present", "fewshot.incremental"), "a column 'present'"),
    Refusal(("feedback.clutter", "--from"), "must be 1x12x12 like those trained on", without=("snn.readout",)),
]
SCM = {"images": 120, "size": 12}
CLUTTER = {"train_images": 120, "validation_images": 60, "test_images": 60}
OPTIONS = {
    "snn.spiking": {"steps": 2},
    "continual.stream": {"scenario": "task"},  # some strategies must know an image's task
    "moving-shapes": {"samples": 60},
    "fewshot.baseline++": {"steps": 3},
    "fewshot.tim": {"steps": 3},
    "shapes-scm": SCM,
    "causal.scm": {"dataset": "shapes-scm", "dataset_options": SCM},
    "causal.effects": {"images": 8, "cells": 0, "top": 1, "set_to": "mean"},
    "causal.explain": {"images": 2, "methods": ("grad-cam",)},
    "feedback.analyse": {"images": 16, "training_images": 16, "corruptions": "blobs"},
    "feedback.mixing": {"levels": "0,0.8", "updates": 2, "images": 20},
    "dfr": {"refits": 2},
    "afr": {"gamma": 4.0},
    "glyphs": {"classes": 30, "held_out": 6, "drawings": 5},
    "feedback.robustness": {"kinds": ("jpeg",), "severities": (3,)},
    "digit-clutter:digits": CLUTTER,
    "concept-shapes": {"samples": 160},
    "causal.attention": {"dataset_options": {}},  # of no data set but the first network's
    "causal.concepts": {"dataset": "concept-shapes", "dataset_options": {"samples": 160}},
    "feedback.clutter": {"dataset": "digit-clutter:digits", "dataset_options": CLUTTER},
    "fewshot.one-shot-runs": {
        "dataset": "glyphs",
        "dataset_options": {"classes": 2, "held_out": 25, "drawings": 3, "size": 12},
        "runs": 3,
    },
}
SMALL_ENOUGH = ("snn.spiking", "feedback.robustness", "fewshot.one-shot-runs", "digit-clutter:digits")
DATA = {
    "present": "digit-clutter:digits",
    "concepts": "concept-shapes",
    "backdoor": ("shapes-scm", SCM),
    "frontdoor": ("shapes-scm", {**SCM, "graph": "frontdoor"}),
}
"""By an objective, data that have the column that it needs."""


LARGE = ("resnet18", "airnet", "vgg-small", "conv4", "resnet12")
"""Networks whose small relatives go through every experiment as well; they do so in ``make test-slow``."""
SECOND, FEWSHOT = "vgg-tiny", "fewshot."
"""What episodes, enrolment and their heads do with a network is the same for both of the kit's; the second one goes
through them in ``make test-slow``."""
TRAINED = ("snn.", "feedback.", SECOND)
"""What an objective of logits does not look into: with another one than the usual they are tried in ``make
test-slow``."""


PLUGINS = ("backbone", "snn", "continual", "fewshot", "feedback", "causal")
USUAL = "feedback.gated"
"""The kind of feedback that goes through everything here; what others share with it they do in ``make test-slow``."""
OFTENER = {"fewshot.one-shot-runs", "fewshot.incremental", "snn.train", "snn.readout", "cosine"}
"""What does with a network with feedback what ``fewshot.enrol``, ``backbone.train`` and ``snn.spiking`` do with it."""


def _says_much_the_same(case):
    """Whether another case has what one with feedback has: of the kinds the usual one, of the networks the first."""
    kinds = {thing for thing in case.things if thing.startswith("feedback.")}
    others = {*case.things} - {*NETWORKS}
    if not kinds or len(case.things) == 1 or (len(others) == 1 and others <= set(FEEDBACK)):
        return False
    return bool(kinds - {USUAL}) or bool(others & OFTENER) or (SECOND in case.things and "snn.convert" not in others)


CAUSAL = {"logistic"} | {name for kind in KINDS for name in getattr(PLUGIN, kind)}
BESIDE = {
    "irm": {"backbone.train", "causal.shift", "continual.stream", "feedback.gated", "linear", "snn.spiking"},
    "causal.effects": {"feedback.gated", "snn.spiking"},
    "causal.explain": {"feedback.gated"},
    "causal.shift": {"snn.spiking"},
}
"""What these are tried beside in ``make test``, on the first network; all else of causal/ beside ``backbone.train``."""


def _rarely_tried(case):
    """Whether something of causal/ is tried beside what it is tried with in ``make test-slow`` alone."""
    ours = CAUSAL & {*case.things}
    others = {*case.things} - ours - {*NETWORKS, "--from"}
    if not ours or len(case.things) == 1:
        return False
    usual = any(others & BESIDE.get(name, {"backbone.train"}) for name in ours) or (not others and len(ours) == 1)
    return not usual or SECOND in case.things


def _all_of_ours():
    for case in cases(*PLUGINS, refusals=REFUSALS, options=OPTIONS, data=DATA):
        large = _says_much_the_same(case)
        large |= _rarely_tried(case)
        large |= str(case).startswith(tuple(f"{name} + " for name in LARGE))
        large |= SECOND in str(case) and FEWSHOT in str(case)
        large |= "present" in case.things and any(name in str(case) for name in TRAINED)
        large |= "feedback.clutter" in case.things and case.things[0] not in ("feedback.clutter", "linear")
        yield pytest.param(case, id=str(case), marks=[pytest.mark.slow] * large)


@pytest.mark.parametrize("case", list(_all_of_ours()))
def test_conformance(case):
    case.run()


@pytest.mark.usefixtures("with_plugins")
def test_the_toy_conforms():
    """Pairs that something of the toy plugin is in, beside what is ours: on one network, but for episodes."""
    refused = [
        Refusal(("toy.gated", "snn.convert"), "Traceable"),
        Refusal(("toy.gated", "snn.deploy", "--from"), "no steps of spikes"),
        Refusal(("toy.groups", "fewshot.incremental"), "must be less than the 2 classes of toy.spots"),
    ]
    options = {name: OPTIONS[name] for name in SMALL_ENOUGH}
    for case in cases("toy", refusals=refused, options=options, data={"toy.groups": "toy.spots", **DATA}):
        if not (
            _says_much_the_same(case)
            or _rarely_tried(case)
            or SECOND in case.things
            or any(FEWSHOT in name for name in case.things)
        ):
            case.run()


@pytest.mark.usefixtures("with_plugins")
def test_what_is_not_declared_fails():
    found = {str(case): case for case in cases("toy", data={"toy.groups": "toy.spots"})}
    with pytest.raises(AssertionError, match="which nobody declared"):
        found["toy.gated + snn.convert + mlp + --from: given a trained network"].run()
    declared = cases("toy", refusals=[Refusal(("toy.tempered",), "a temperature")])
    with pytest.raises(AssertionError, match="declared to be refused for 'a temperature', but it works"):
        next(case for case in declared if str(case) == "toy.tempered: head").run()
    with pytest.raises(ValueError, match=r"no case has all of toy\.tempered, toy\.gone"):
        cases("toy", refusals=[Refusal(("toy.tempered", "toy.gone"), "")])
    with pytest.raises(ValueError, match="plugin 'gone' must be installed"):
        cases("gone")


class Counting(Objective):
    """An objective that forgets how far it was."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, outputs, batch, step):
        self.times += 1
        return outputs.logits.square().mean() * self.times


def test_what_breaks_a_contract_fails():
    with pytest.raises(AssertionError, match="a tap sees the features"):
        networks.honours_taps(networks.Bare())
    lasting = networks.Bare()
    lasting.forward = lambda x: lasting.forward_steps(x).sum(0) * 2
    with pytest.raises(AssertionError, match="forward is the read-out of forward_steps"):
        networks.keeps_contract(lasting)
    with pytest.raises(AssertionError, match="linear=False is said where"):
        heads.check_head(Entry(target="", summary="", linear=False), nn.Linear)
    images = torch.zeros(8, 1, 2, 2, dtype=torch.uint8)
    data = MemorySplit(images, torch.arange(8) % 2)
    with pytest.raises(AssertionError, match="with the state of another one it goes on"):
        objectives.check_objective(lambda setting: Counting(), Asks(), data, 2)
    with pytest.raises(AssertionError, match="original_index"):
        datasets.check_dataset(lambda: Source({"train": data}, ("a", "b"), "0" * 64))


def test_files_that_are_not_there_are_no_failure():
    (mnist,) = (case for case in cases("backbone") if str(case) == "mnist: data set")
    with pytest.raises(SkipTest, match="must be under the data root"):
        mnist.run()
