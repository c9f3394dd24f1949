"""A trial's identity, and what it needs first."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.backbone.contract import Requirement
from engram.backbone.errors import UserError
from engram.backbone.experiments.configs import TrainConfig
from engram.backbone.options.inherited import inherited
from engram.backbone.options.schema import schema
from engram.backbone.registry import Registry
from engram.benchmarks.driving.setting import RunSetting
from engram.benchmarks.driving.writing import write_trial
from engram.benchmarks.planning.config import changed
from engram.benchmarks.planning.plan import Planner, trial_id
from engram.benchmarks.records.identity import DataSets
from engram.benchmarks.worker.provenance import distributions

pytestmark = pytest.mark.usefixtures("with_plugins")
REGISTRY = Registry.discover()
BASE = {"backbone": "lenet5"}
CHANGES = {
    "seed": 1,
    "dataset": "mnist",
    "backbone": "mlp",
    "backbone_options": {"width": 2.0},
    "validation": 0.2,
    "epochs": 99,
    "batch_size": 9,
    "optimizer": "sgd",
    "lr": 0.123,
    "momentum": 0.123,
    "weight_decay": 0.123,
    "schedule": "constant",
    "warmup": 0.123,
    "label_smoothing": 0.123,
    "flip": "alternate",
    "translate": 7,
    "affine": 0.123,
    "elastic": 0.123,
    "cutout": 7,
    "randaugment": 7,
    "ema": 0.123,
    "clip": 0.123,
    "gradient_checkpointing": True,
    "precision": "fp32",
}


@pytest.fixture
def planner(tmp_path: Path) -> Planner:
    registry = Registry.discover()
    return Planner(registry, tmp_path, DataSets(registry, tmp_path))


def finish(planner: Planner, trial) -> None:
    """Make a planned trial look done."""
    write_trial(trial, RunSetting(out=planner.out, data_root=planner.out, argv=[]))
    said = {"experiment": trial.experiment, "trial": trial.id, "config": dict(trial.config)}
    (trial.folder / "result.json").write_text(json.dumps({**said, "metrics": {}, "tables": {}, "artifacts": {}}))


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)))
def test_id_ignores_the_order_of_keys(options):
    backwards = dict(reversed(list(options.items())))
    assert trial_id("a", 1, options, {}) == trial_id("a", 1, backwards, {})


def test_every_semantic_field_is_part_of_the_id(planner):
    found = {"": planner.add("backbone.train", BASE).id}
    found |= {key: planner.add("backbone.train", {**BASE, key: value}).id for key, value in CHANGES.items()}
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize("experiment", [name for _, name, _ in REGISTRY.entries("experiments")])
def test_no_field_of_any_experiment_is_left_out_of_the_id(experiment):
    config = REGISTRY.options("experiments", experiment)()
    ids = {"": trial_id(experiment, 1, changed(REGISTRY, config), {})}
    for option in schema(type(config)):
        if option.options_of is None:
            other = replace(config, **{option.field: another(getattr(config, option.field))})
            ids[option.name] = trial_id(experiment, 1, changed(REGISTRY, other), {})
    assert len(set(ids.values())) == len(ids)


def another(value):
    """A value that is not that one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return (*value, "another") if isinstance(value, tuple) else f"{value} another"


def test_experiment_version_and_inputs_are_part_of_the_id():
    ids = [
        trial_id("a", 1, {}, {}),
        trial_id("b", 1, {}, {}),
        trial_id("a", 2, {}, {}),
        trial_id("a", 1, {}, {"x": "y"}),
    ]
    assert len(set(ids)) == 4
    assert all(len(identity) == 16 for identity in ids)


def test_values_that_a_recipe_would_give_do_not_change_the_id(planner):
    plain = planner.add("backbone.train", BASE)
    assert planner.add("backbone.train", {"lr": 8e-3, "epochs": 30}) == plain
    assert planner.add("backbone.train", {"backbone_options": {"width": 1.0}}) == plain


def test_config_json_holds_every_value(planner):
    stored = planner.add("backbone.train", BASE).stored()
    assert stored["config"]["lr"] == 8e-3
    assert stored["config"]["backbone_options"]["width"] == 1.0


def test_a_changed_default_is_refused(planner):
    trial = planner.add("backbone.train", BASE)
    finish(planner, trial)
    stored = trial.stored()
    stored["config"]["lr"] = 17.0
    (trial.folder / "config.json").write_text(json.dumps(stored))
    planner.trials.clear()  # as another process
    with pytest.raises(UserError, match=r"lr of trial .* was 17.0 .* Raise the version of backbone.train, or delete"):
        planner.add("backbone.train", BASE)


def test_a_new_option_keeps_old_results(planner):
    trial = planner.add("backbone.train", BASE)
    finish(planner, trial)
    stored = trial.stored()
    del stored["config"]["precision"]
    (trial.folder / "config.json").write_text(json.dumps(stored))
    assert planner.add("backbone.train", BASE) == trial


def test_all_spellings_of_from_are_one_trial(planner):
    trained = planner.add("backbone.train", BASE)
    finish(planner, trained)
    spellings = [trained.id, trained.id[:6], str(trained.folder)]
    planned = [planner.add("backbone.evaluate", {"from_trial": text}) for text in spellings]
    assert len({trial.id for trial in planned}) == 1
    assert planned[0].config["from"] == trained.id
    assert planned[0].inputs == {"trained": trained.id}
    assert planned[0].needs == ()


def test_from_must_be_known_unique_and_finished(planner):
    first, second = (planner.add("backbone.train", {"seed": seed}) for seed in (0, 1))

    def complaint(text: str) -> str:
        with pytest.raises(UserError) as caught:
            planner.add("backbone.evaluate", {"from_trial": text})
        return str(caught.value)

    planner.trials.clear()  # as another process
    assert "engram status" in complaint("nothing-like-it")
    write_trial(first, RunSetting(out=planner.out, data_root=planner.out, argv=[]))
    assert "which is planned" in complaint(first.id)  # it has not begun
    finish(planner, first)
    for folder in (first.folder, second.folder):
        (folder.parent / f"aaaa{folder.name[4:]}").mkdir()
    assert "Give more of it" in complaint("aaaa")


def test_the_option_that_names_a_missing_trial_is_complained_about(planner):
    def complaints(**options) -> list[str]:
        with pytest.raises(UserError) as caught:
            planner.add("backbone.train", options)
        return [line.partition(" must be")[0] for line in str(caught.value).splitlines()]

    assert complaints(teacher="nosuch") == ["--teacher"]
    assert complaints(teacher="nosuch", from_trial="neither") == ["--from", "--teacher"]
    assert complaints(teacher="nosuch", from_trial="nosuch") == ["--from and --teacher"]


def test_required_trials_come_first_and_are_shared(planner):
    planner.add("counting.twice", {"steps": 3})
    planner.add("counting.twice", {"steps": 3, "seed": 1})
    planner.add("counting.twice", {"steps": 3})
    experiments = [trial.experiment for trial in planner.trials.values()]
    assert experiments == ["counting.count", "counting.twice"] * 2
    count, twice, *_ = planner.trials.values()
    assert twice.needs == (count.id,)


def test_what_a_trial_of_from_fixes_is_inherited(planner):
    options = {"dataset": "mnist", "backbone": "vgg-tiny", "backbone_options": {"width": 0.5}, "validation": 0.2}
    trained = planner.add("backbone.train", options)  # planned beside it, and not done yet
    for experiment in ("backbone.train", "continual.stream", "snn.train"):
        trial = planner.add(experiment, {"from_trial": trained.id[:8]})
        assert {key: trial.config[key] for key in options if key != "backbone_options"}.items() <= options.items()
        assert trial.config["backbone_options"]["width"] == 0.5
        assert trial.needs == (trained.id,) and trial.inputs == {"trained": trained.id}
    converted = planner.add("snn.convert", {"from_trial": trained.id})
    assert converted.config["epochs"] == trained.config["epochs"] and converted.config["backbone"] == "vgg-tiny"
    again = planner.add("backbone.train", {"from_trial": converted.id, "adapter": ("snn.qcfs",)})
    assert (again.config["dataset"], again.config["adapter_options"]["qcfs.levels"]) == ("mnist", 4)
    other = planner.add("backbone.train", {"from_trial": trained.id, "dataset": "digits"})
    assert (other.config["dataset"], other.config["validation"]) == ("digits", 0.1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"backbone": "mlp"},
            "--backbone must be that of the trial beside --from; got mlp. Leave it out: it is lenet5",
        ),
        ({"backbone_options": {"width": 2.0}}, "--backbone.width must be that of the trial beside --from; got 2.0"),
        ({"validation": 0.3}, "--validation must be that of the trial beside --from, whose other images were trained"),
    ],
)
def test_what_contradicts_the_trial_of_from_is_one_line(planner, given, said):
    trained = planner.add("backbone.train", BASE)
    with pytest.raises(UserError) as caught:
        planner.add("continual.stream", {"from_trial": trained.id, **given})
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)
    assert planner.add("backbone.train", {"from_trial": trained.id, "backbone": "lenet5", "validation": 0.0})


def test_the_version_of_what_a_trial_uses_is_part_of_its_id_alone(planner):
    def ids(registry: Registry) -> list[str]:
        made = Planner(registry, planner.out, planner.sets)
        return [made.add("continual.stream", {"strategies": (f"continual.{name}",)}).id for name in ("si", "ewc")]

    si, ewc = ids(planner.registry)
    plugin = planner.registry.plugins["continual"]
    strategies = {**plugin.strategies, "continual.si": replace(plugin.strategies["continual.si"], version=2)}
    corrected = {**planner.registry.plugins, "continual": replace(plugin, strategies=strategies)}
    now, same = ids(replace(planner.registry, plugins=corrected))
    assert now != si and same == ewc


def test_provenance_names_what_a_trial_uses(planner):
    def used(experiment: str, **given) -> set[str]:
        cls = planner.registry.options("experiments", experiment)
        return set(distributions(planner.registry, experiment, cls.resolve(given)))

    ours = used("backbone.train")
    assert len(ours) == 1
    assert used("continual.stream", strategies=("avalanche:Replay",)) == ours | {"avalanche-lib"}
    assert (
        used("snn.train", engine="snntorch")
        == ours | {"snntorch"}
        == used("backbone.train", adapter=("snn.spiking",), adapter_options={"spiking.engine": "snntorch"})
    )
    assert used("counting.count") == {"counting"}


def test_what_is_required_comes_after_what_it_is_made_from(planner):
    first = Requirement(experiment="backbone.train", config=TrainConfig.resolve(BASE))
    tuned = TrainConfig.resolve({**BASE, "epochs": 3})
    second = planner._required(Requirement(experiment="backbone.train", config=tuned, after={"trained": first}))
    again = planner._required(first)
    assert list(planner.trials) == [again.id, second.id]
    assert second.config["from"] == second.inputs["trained"] == again.id
    assert second.needs == (again.id,)
    plain = planner._required(Requirement(experiment="backbone.train", config=tuned))
    assert plain.id != second.id and plain.config["from"] is None


def test_what_is_required_is_the_same_trial_when_what_it_comes_after_is_done(planner):
    first = Requirement(experiment="backbone.train", config=TrainConfig.resolve(BASE))
    tuned = TrainConfig.resolve({**BASE, "epochs": 3})
    second = Requirement(experiment="backbone.train", config=tuned, after={"trained": first})
    before = planner._required(second)
    finish(planner, planner.trials[before.inputs["trained"]])
    later = Planner(planner.registry, planner.out, DataSets(planner.registry, planner.out))
    assert later._required(second).id == before.id


def test_what_a_trial_was_is_told_to_what_is_made_from_it():
    known = inherited(Registry.discover(), TrainConfig, {"from": "abc", "lr": 0.5, "gone": 1}, "snn.train")
    assert known == {"lr": 0.5, "from_trial": "abc", "experiment": "snn.train"}
