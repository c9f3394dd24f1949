"""Flags and TOML -> a checked configuration -> TOML, every mistake found at once."""

from __future__ import annotations

import tomllib
from dataclasses import make_dataclass
from typing import Annotated, Literal

import pytest
from annotated_types import Gt
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.backbone.contract import ExperimentConfig
from engram.backbone.errors import UserError
from engram.backbone.experiments.configs import EvaluateConfig, TrainConfig
from engram.backbone.options import Checker
from engram.backbone.registry import Registry
from engram.benchmarks.commands.command import read_experiment
from engram.benchmarks.commands.flags import Planning
from engram.benchmarks.planning.config import changed, full, to_toml, without_defaults
from engram.benchmarks.planning.plan import Planner
from engram.benchmarks.records.identity import DataSets

REGISTRY = Registry.discover()


def flags(*words: str, experiment: str = "backbone.train"):
    cls = REGISTRY.options("experiments", experiment)
    return without_defaults(REGISTRY, cls.resolve(read_experiment(experiment, words, Planning, REGISTRY)[1]))


def complaints(*words: str, experiment: str = "backbone.train") -> list[str]:
    with pytest.raises(UserError) as caught:
        flags(*words, experiment=experiment)
    return str(caught.value).splitlines()


def from_values(cls, values):
    checker = Checker(REGISTRY, lambda name: name, "Mend it.")
    found = checker.build(cls, values)
    checker.require()
    return without_defaults(REGISTRY, found) if isinstance(found, ExperimentConfig) else found


def test_flags_of_all_kinds():
    config = flags(
        "--epochs", "3", "--lr=0.5", "--gradient-checkpointing", "--backbone", "mlp", "--backbone.depth", "3",
        "--ema", "0.5", "--batch_size", "7",
    )  # fmt: skip
    assert isinstance(config, TrainConfig)
    assert (config.epochs, config.lr, config.gradient_checkpointing, config.ema) == (3, 0.5, True, 0.5)
    assert config.backbone_options == {"depth": 3}
    assert config.batch_size == 7


@pytest.mark.parametrize(
    ("written", "means"),
    [("--X", True), ("--X=true", True), ("--X=false", False), ("--no-X", False), ("--no_X", False)],
)
def test_every_way_to_write_a_switch(written, means):
    config = flags("--gradient-checkpointing", written.replace("X", "gradient-checkpointing"))
    assert isinstance(config, TrainConfig)
    assert config.gradient_checkpointing is means


def test_choices_that_are_no_text_are_read_from_text():
    assert flags("--dataset", "folder:x", "--dataset.channels", "3").dataset_options == {"channels": 3}
    found = complaints("--dataset", "folder:x", "--dataset.channels", "2")
    assert found == ["--dataset.channels must be one of 1, 3; got 2. See: engram run backbone.train --help"]


@pytest.mark.parametrize(
    ("hint", "given"),
    [
        (Literal[1, 3], {"3": 3, 3: 3}),
        (Literal[1, 3] | None, {"1": 1, "none": None}),
        (Literal["1", 1, 2], {"1": "1", "2": 2}),
        (Literal["auto", True, False], {"auto": "auto", "true": True, "false": False, True: True}),
        (Literal["a", None], {"a": "a", "none": None}),
        (Annotated[Literal[2, 4], "a mark"], {"4": 4}),
        (Annotated[Literal[2, 4] | None, "a mark"], {"4": 4}),
        (tuple[Literal[2, 4], ...], {"2,4": (2, 4), (4,): (4,)}),
        (int | Literal["all"], {"all": "all", "7": 7}),
        (Literal["all"] | Annotated[int, Gt(0)], {"all": "all", "7": 7}),
    ],
)
def test_every_choice_is_read_from_its_text(hint, given):
    cls = make_dataclass("Options", [("value", hint, None)], frozen=True)
    for value, meant in given.items():
        found = from_values(cls, {"value": value}).value
        assert found == meant
        assert type(found) is type(meant)
    for value in ("5x", 9.5):
        with pytest.raises(UserError, match="value must be"):
            from_values(cls, {"value": value})


def test_every_spelling_of_a_name_is_one_option():
    once = from_values(TrainConfig, {"batch-size": 7, "backbone.width": 2.0})
    others = [
        {"batch_size": 7, "backbone_options.width": 2.0},
        {"--batch-size": 7, "--backbone.width": 2.0},
        {"batch_size": 7, "backbone_options": {"width": 2.0}},
        {"batch-size": 7, "backbone": {"width": 2.0}},
        {"batch-size": 7, "backbone-options": {"width": 2.0}},
    ]
    assert [from_values(TrainConfig, values) for values in others] == [once] * len(others)
    with pytest.raises(UserError, match="batch-size must be given once; got batch-size and batch_size"):
        from_values(TrainConfig, {"batch-size": 7, "batch_size": 7})


def test_several_named_things_have_their_options_under_their_names():
    words = ("--strategies", "si,er", "--strategies.si.c", "0.5", "--strategies.er.replay_batch", "64")
    config = flags(*words, experiment="continual.stream")
    assert config.strategies == ("continual.si", "continual.er")
    assert config.strategies_options == {"si.c": 0.5, "er.replay_batch": 64}
    assert config.options_of("continual.si") == {"c": 0.5}
    spelled = {"strategies": ["continual.si", "er"], "strategies_options": {"si.c": 0.5, "er.replay_batch": 64}}
    assert type(config).resolve(vars(from_values(type(config), spelled))) == config
    assert changed(REGISTRY, config)["strategies_options"] == {"si.c": 0.5, "er.replay_batch": 64}
    assert full(REGISTRY, config)["strategies_options"]["si.xi"] == 0.1
    assert from_values(type(config), tomllib.loads(to_toml(changed(REGISTRY, config)))) == config


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--strategies", "si,zz"], "got 'zz'"),
        (["--strategies", "si", "--strategies", "si"], "--strategies must be different ones; got si, si."),
        (["--strategies", "si", "er", "--strategies.si.cc", "1"], "Did you mean --strategies.si.c"),
        (["--strategies", "si", "--strategies.er.replay_batch", "1"], "got --strategies.er.replay-batch"),
        (["--strategies", "si", "--strategies.si.c", "-1"], "--strategies.si.c must be at least 0; got -1"),
        (
            ["--strategies", "si", "--strategies.si.c", "aut"],
            "must be a number of at least 0, or auto; got aut. Did",
        ),
    ],
)
def test_options_of_several_things_are_checked_like_all_others(words, said):
    assert said in "\n".join(complaints(*words, experiment="continual.stream"))


def test_a_word_in_place_of_a_number():
    words = ("--strategies", "si", "--strategies.si.c")
    chosen = flags(*words, "auto", experiment="continual.stream")
    assert chosen == flags(*words[:2], experiment="continual.stream")  # the default
    numbered = flags(*words, "1", experiment="continual.stream")
    assert numbered.strategies_options == {"si.c": 1.0} and numbered != chosen
    for config in (chosen, numbered):
        assert from_values(type(config), tomllib.loads(to_toml(changed(REGISTRY, config)))) == config
    assert full(REGISTRY, chosen)["strategies_options"]["si.c"] == "auto"


def test_renamed_flag():
    assert flags("--from", "abc", experiment="backbone.evaluate") == EvaluateConfig(from_trial="abc")


def test_all_mistakes_at_once():
    found = complaints("--lr", "-1", "--epochs", "many", "--datset", "digits", "--backbone", "lenet6", "--flip", "yes")
    assert len(found) == 5
    text = "\n".join(found)
    assert "--lr must be greater than 0; got -1. See: engram run backbone.train --help" in found
    assert "--epochs must be a whole number of at least 1; got many." in text
    assert "got --datset. Did you mean --dataset" in text
    assert "got 'lenet6'. Did you mean lenet5?" in text
    assert "--flip must be one of none, random, alternate; got yes." in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lr"], "--lr must be a number greater than 0; got nothing"),
        (["--lr", "inf"], "--lr must be a number greater than 0; got inf"),
        (["--lr", "nan"], "--lr must be"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--epochs", "1.5"], "--epochs must be a whole number"),
        (["--epochs", ""], "got ''"),
        (["stray"], "got stray as well"),
        (["--backbone.widht", "2"], "Did you mean --backbone.width"),
        (["--backbone.width", "-2"], "--backbone.width must be greater than 0"),
        (["--dataset", "folder"], "Write folder:PATH"),
        (["--dataset", "digits:x"], "Write digits."),
        (["--gradient-checkpointing=perhaps"], "--gradient-checkpointing must be true or false; got perhaps"),
        (["--no-gradient-checkpointing=true"], "got true. Write --gradient-checkpointing=false or =true"),
        (["--no-epochs", "3"], "got --no-epochs. Did you mean --epochs or "),
        (["--no-epochs=3"], "got --no-epochs. Did you mean --epochs or "),
        (["--epochs", "9" * 23], f"--epochs must be a whole number of at least 1, not beyond {2**53}; got 999"),
        (
            ["--batch-size", str(2**53 + 1)],
            f"must be a whole number of at least 1, not beyond {2**53}; got {2**53 + 1}",
        ),
        (["--workers", "2"], "got --workers"),
    ],
)
def test_one_line_with_the_next_step(words, said):
    found = complaints(*words)
    assert len(found) == 1
    assert said in found[0]
    assert found[0].count("; got ") == 1


def test_problems_of_combinations_are_reported(tmp_path):
    with pytest.raises(UserError, match="--from must be a trained trial"):
        Planner(REGISTRY, tmp_path, DataSets(REGISTRY, tmp_path)).add("backbone.evaluate", {})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"lr": "fast"}, "lr must be a number"),
        ({"epochs": True}, "epochs must be a whole number"),
        ({"dataset": 3}, "dataset must be text"),
        ({"epoch": 3}, "Did you mean epochs?"),
        ({"backbone_options": {"width": 0}}, "backbone.width must be greater than 0"),
        ({"backbone_options": {"wide": 1}}, "Did you mean backbone.width"),
        ({"backbone_options": 3}, "backbone-options must be a table"),
        ({"dataset_options": {"size": 3}}, "something that has options"),
    ],
)
def test_toml_is_checked_the_same_way(values, said):
    with pytest.raises(UserError, match="must be") as caught:
        from_values(TrainConfig, values)
    assert said in str(caught.value)


def test_a_spelled_out_default_changes_nothing():
    assert from_values(TrainConfig, {"backbone_options": {"width": 1.0}}) == TrainConfig()


configurations = st.builds(
    TrainConfig,
    seed=st.integers(0, 2**31 - 1),
    backbone=st.sampled_from(["lenet5", "mlp", "airnet"]),
    backbone_options=st.fixed_dictionaries({}, optional={"width": st.sampled_from([0.5, 2.0])}),
    adapter=st.sampled_from([(), ("snn.qcfs",), ("snn.qcfs", "snn.spiking")]),
    epochs=st.integers(1, 1000),
    lr=st.floats(1e-12, 1e12),
    flip=st.sampled_from(["none", "random", "alternate"]),
    gradient_checkpointing=st.booleans(),
)


@given(configurations)
@settings(max_examples=50, deadline=None)
def test_toml_round_trip(config):
    values = full(REGISTRY, config)
    text = to_toml(values)
    again = from_values(TrainConfig, tomllib.loads(text))
    assert again == config
    assert to_toml(full(REGISTRY, again)) == text
    assert from_values(TrainConfig, changed(REGISTRY, config)) == config


@given(st.text())
def test_any_text_survives_toml(text):
    text = "".join(char for char in text if not 0xD800 <= ord(char) <= 0xDFFF)
    assert tomllib.loads(to_toml({"from": text})) == {"from": text}


def test_what_needs_more_than_options_is_no_choice():
    (line,) = complaints("--adapter", "snn.convert")
    known = ", ".join(REGISTRY.names("adapters"))
    assert line.startswith(f"adapter must be one of {known}; got snn.convert. It needs images,")
    assert "snn.convert" not in REGISTRY.names("adapters") and REGISTRY.entry("adapters", "snn.convert").instead


def test_a_head_and_its_options():
    config = flags("--head", "cosine", "--head.scale", "4")
    assert config.head == "cosine" and config.head_options == {"scale": 4.0}
    assert flags().head == "linear"


def test_several_adapters_are_applied_in_turn():
    config = flags("--adapter", "qcfs", "--adapter", "snn.spiking", "--adapter.qcfs.levels", "8")
    assert (config.adapter, config.adapter_options) == (("snn.qcfs", "snn.spiking"), {"qcfs.levels": 8})
    table = {"adapter": ["snn.qcfs", "spiking"], "adapter_options": {"qcfs": {"levels": 8}}}
    spelled = from_values(TrainConfig, table)
    assert (spelled.adapter, spelled.adapter_options) == (config.adapter, config.adapter_options)
    alone = flags("--adapter", "snn.qcfs", "--adapter.levels", "8")
    assert alone == flags("--adapter", "snn.qcfs", "--adapter.qcfs.levels", "8")
    assert flags("--adapter", "none").adapter == ()
    assert "Did you mean --adapter.qcfs.levels" in complaints("--adapter", "qcfs,spiking", "--adapter.levels", "8")[0]
