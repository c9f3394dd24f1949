"""Options from plain mappings are checked wherever they come from, and every mistake is named at once."""

import pytest
import torch
from torch import nn

from engram.backbone.contract import Named
from engram.backbone.errors import UserError
from engram.backbone.nets.making import adapt, build
from engram.backbone.options import options_of
from engram.backbone.registry import Registry

REGISTRY = Registry.discover()


def network(**options):
    return build("vgg-tiny", options, (1, 12, 12), 3, torch.zeros(1), torch.ones(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": -3}, r"--backbone.width must be greater than 0 and at most .*; got -3. See: engram list backbones"),
        ({"width": float("nan")}, r"--backbone.width must be a number greater than 0 .*; got nan"),
        ({"depth": 0}, r"--backbone.depth must be at least 1 .*; got 0"),
        ({"depth": True}, r"--backbone.depth must be a whole number of at least 1 .*; got True"),
        ({"pooling": "median"}, r"--backbone.pooling must be one of avg, max, stride; got median"),
        ({"widht": 1}, r"must be one of those offered; got --backbone.widht. Did you mean --backbone.width"),
    ],
)
def test_a_network_is_not_built_from_options_it_cannot_have(options, message):
    with pytest.raises(UserError, match=message):
        network(**options)


def test_all_mistakes_are_named_at_once():
    with pytest.raises(UserError) as error:
        network(width=0, pooling="median", activation="relu", nosuch=1)
    assert [line.split(" must")[0] for line in str(error.value).splitlines()] == [
        *("option", "--backbone.width", "--backbone.pooling")
    ]


def test_adapters_and_strategies_too():
    with pytest.raises(UserError, match=r"--adapter.levels must be at least 1 .*; got 0"):
        adapt(network().backbone, "snn.qcfs", {"levels": 0})
    with pytest.raises(UserError, match=r"--adapter.steps must be at least 1 .*; got -1"):
        build(
            *("mlp", {}, (1, 4, 4), 2, torch.zeros(1), torch.ones(1)),
            adapters=[Named("snn.spiking", 1, {"steps": -1})],
        )
    with pytest.raises(UserError, match=r"--strategies.si.c must be a number of at least 0, or auto; got much"):
        options_of(REGISTRY, "strategies", "continual.si", {"c": "much"})


def test_what_has_no_options_takes_none():
    name = "digits"
    assert options_of(REGISTRY, "datasets", name, {}) is None
    with pytest.raises(UserError, match="has no options"):
        options_of(REGISTRY, "datasets", name, {"size": 3})


def test_a_width_given_as_a_whole_number_builds_the_same():
    assert [p.shape for p in network(width=1).parameters()] == [p.shape for p in network().parameters()]
    assert isinstance(network(width=1).head, nn.Linear)
