from dataclasses import fields

import pytest

from engram.backbone.experiments.configs import TrainConfig
from engram.backbone.experiments.recipes import recipe
from engram.backbone.plugin import PLUGIN
from engram.backbone.training.options import TrainingOptions

RECIPE_FIELDS = {field.name for field in fields(TrainingOptions)} - {"seed", "precision"}
DATASETS = [name + ":x" * entry.takes_path for name, entry in PLUGIN.datasets.items()]


@pytest.mark.parametrize("dataset", [*DATASETS, "somebody.elses:/path"])
@pytest.mark.parametrize("backbone", [*PLUGIN.backbones, "somebody.elses"])
def test_every_network_on_every_dataset_is_trained_by_its_recipe(backbone, dataset):
    config = TrainConfig.resolve({"backbone": backbone, "dataset": dataset})
    for name, value in recipe(backbone, dataset).items():
        assert name in RECIPE_FIELDS and getattr(config, name) == value
    assert TrainConfig.resolve(vars(config)) == config
    assert config.problems() == []
    assert config.epochs >= 1 and config.batch_size >= 1 and 0 <= config.ema < 1 and 0 <= config.warmup < 1


def test_what_is_given_stays():
    config = TrainConfig.resolve({"epochs": 3, "flip": "none", "ema": 0.0, "lr": 1.5, "seed": 4})
    assert (config.epochs, config.flip, config.ema, config.lr, config.seed) == (3, "none", 0.0, 1.5, 4)


def test_recipes_are_not_shared():
    recipe("mlp", "digits")["epochs"] = 0
    assert recipe("mlp", "digits")["epochs"] != 0


def test_values_have_the_types_of_the_configuration():
    from pydantic import TypeAdapter

    check = TypeAdapter(TrainConfig)
    for backbone in PLUGIN.backbones:
        for dataset in DATASETS:
            values = {"backbone": backbone, "dataset": dataset, "head": "linear", **recipe(backbone, dataset)}
            assert check.validate_python(values) == TrainConfig.resolve(values)


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.05), ("adamw", 8e-3), ("muon", 0.05)])
def test_rates_follow_the_optimizer(optimizer, lr):
    config = TrainConfig.resolve({"optimizer": optimizer})
    assert (config.optimizer, config.lr) == (optimizer, lr)
    assert TrainConfig.resolve({"optimizer": optimizer, "lr": 0.7}).lr == 0.7
