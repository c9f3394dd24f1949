"""Adapters are refused at planning time on networks that are not what they need."""

from dataclasses import replace

import pytest

from engram.backbone.contract import Entry, Plugin
from engram.backbone.errors import UserError
from engram.backbone.experiments.configs import TrainConfig
from engram.backbone.registry import Registry
from engram.benchmarks.planning.abilities import unmet
from engram.benchmarks.planning.plan import Planner
from engram.benchmarks.records.identity import DataSets


def registry(**offers):
    more = {name: Entry(target="math:pi", summary="", offers=each) for name, each in offers.items()}
    gated = Entry(target="math:pi", summary="", needs=("Staged", "StageSteps"))
    found = Registry.discover()
    return replace(
        found, plugins={**found.plugins, "more": Plugin(name="more", backbones=more, adapters={"gated": gated})}
    )


@pytest.mark.parametrize(
    ("backbone", "adapter", "why"),
    [
        ("lenet5", "gated", None),
        ("lenet5", "snn.spiking", None),
        ("unknown", "gated", None),
        ("lenet5", None, None),
        ("branching", "snn.spiking", "a network for snn.spiking must be Traceable; got branching, which makes none"),
        ("branching", "gated", "a network for gated must be Staged; got branching, which makes none that is"),
    ],
)
def test_a_network_without_what_an_adapter_needs_is_refused_by_that_name(backbone, adapter, why, tmp_path):
    held = registry(unknown=None, branching=("StageSteps",))
    planner = Planner(held, tmp_path, DataSets(held, tmp_path))
    given = {"backbone": backbone, "adapter": (adapter,) if adapter else ()}
    if why is None:
        assert planner.add("backbone.train", given)
        return
    with pytest.raises(UserError, match=why):
        planner.add("backbone.train", given)


def test_what_a_trial_was_adapted_with_is_not_known_beforehand():
    held = Registry.discover()
    (line,) = unmet(held, TrainConfig(backbone="lenet5", adapter=("snn.readout",)))
    assert line.startswith("a network for snn.readout must be Spiking; got lenet5")
    assert unmet(held, TrainConfig(backbone="lenet5", adapter=("snn.readout",), from_trial="1a2b")) == []


@pytest.mark.parametrize("head", ["fewshot.ridge", "fewshot.maml"])
def test_a_head_that_is_not_trained_with_fixed_classes_is_refused(head):
    (line,) = unmet(Registry.discover(), TrainConfig(head=head))
    assert line.startswith(f"--head must be one that is trained with fixed classes; got {head}. Use linear, ")
