"""What holds for every strategy there is, on networks it has never heard of."""

from itertools import combinations

import pytest
import torch

from engram.backbone.errors import UserError
from engram.backbone.registry import Registry
from engram.continual.experiment.configs import StreamConfig
from engram.continual.traits import traits

STRATEGIES = [name for name in Registry.discover().names("strategies") if name.startswith("continual.")]
OFTEN = ("continual.si", "continual.er", "continual.hat")
"""A penalty, a buffer and a mask: the others make their pairs in ``make test-slow``."""


def slow_unless(often, *values, **more):
    return pytest.param(*values, marks=[pytest.mark.slow] * (not often), **more)


@pytest.mark.parametrize(
    ("strategy", "network"),
    [
        slow_unless(network == "residual" or name in OFTEN, name, network)
        for name in STRATEGIES
        for network in ("residual", "spiking", "recurrent")
    ],
)
def test_it_learns_on_any_network_and_is_resumed_bit_for_bit(learn, resume, networks, strategy, network):
    options = {"scenario": "task", "tasks": 2, "epochs": None, "iterations": 4, "buffer": 20, **networks[network]}
    few = {"ewc": {"ewc.samples": 40}, "mas": {"mas.samples": 40}}  # images to ask on, of all of a task
    options["strategies_options"] = few.get(strategy.partition(".")[2], {})
    whole = learn(strategy, **options)
    assert torch.isfinite(whole.weights()).all()
    declared = traits(strategy, {key.partition(".")[2]: value for key, value in options["strategies_options"].items()})
    assert [each.by_rows for each in whole.strategies] == [declared.by_rows]
    broken = resume(6, strategy, **options)
    assert torch.equal(whole.weights(), broken.weights())
    assert str(whole.result.tables) == str(broken.result.tables)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if not traits(name).boundaries])
def test_it_learns_from_a_stream_without_boundaries(learn, resume, strategy):
    options = {"scenario": "task-free", "epochs": None, "batch_size": 10, "lr": 3e-3}
    whole, broken = learn(strategy, **options), resume(70, strategy, **options)
    assert torch.equal(whole.weights(), broken.weights())
    assert sum(bool(rows) for rows in whole.state.matrices.accuracy) == 4


def combine(pair):
    return not StreamConfig.resolve({"scenario": "task", "strategies": pair}).problems()


@pytest.fixture(scope="module")
def alone():
    """Weights that each strategy ends with by itself."""
    return {}


@pytest.mark.parametrize(
    "pair",
    [
        slow_unless(set(pair) & set(OFTEN), pair, id=" ".join(pair))
        for pair in combinations(STRATEGIES, 2)
        if combine(pair)
    ],
)
def test_strategies_work_together_and_each_has_its_say(learn, alone, pair):
    # a seed with which HAT leaves some gate half open, or importances would all be behind weights that it holds still
    options = {"scenario": "task", "tasks": 2, "epochs": 1, "lr": 5e-3, "seed": 2}
    both = learn(*pair, **options)
    assert torch.isfinite(both.weights()).all() and both.accuracy > 0.3
    for name in pair:
        if name not in alone:
            alone[name] = learn(name, **options).weights()
    assert not any(torch.equal(both.weights(), alone[name]) for name in pair)


@pytest.mark.parametrize(
    "pair",
    [
        slow_unless(pair in (("si", "hat"), ("derpp", "lwf")), pair)
        for pair in (("ewc", "si"), ("si", "hat"), ("si", "packnet"), ("derpp", "lwf"), ("agem", "ewc"))
    ],
)
def test_the_order_of_names_does_not_matter_where_a_method_would_be_another_one(learn, pair):
    """SI would see a penalty in its gradient, or steps that are undone afterwards; LwF would weigh replay down; A-GEM
    would leave a penalty unprojected."""
    options = {"scenario": "task", "epochs": 2}
    one, other = learn(*pair, **options), learn(*reversed(pair), **options)
    assert torch.equal(one.weights(), other.weights())


@pytest.mark.parametrize(
    "pair",
    [
        slow_unless(pair in (("si", "er"), ("xdg", "si")), pair)
        for pair in (("si", "er"), ("ewc", "derpp"), ("lwf", "er"), ("xdg", "si"), ("mas", "er-ace"))
    ],
)
def test_strategies_that_work_together_are_resumed_bit_for_bit(learn, resume, pair):
    options = {"scenario": "task", "epochs": 1}
    assert torch.equal(learn(*pair, **options).weights(), resume(20, *pair, **options).weights())


@pytest.mark.parametrize(
    ("strategy", "options", "said"),
    [
        ("derpp", {"buffer": 1}, "--buffer must be at least 2 for a network with BatchNorm; got 1."),
        ("er-ace", {"strategies_options": {"er-ace.replay_batch": 1}}, "--strategies.er-ace.replay-batch must be at"),
        ("agem", {"buffer": 5}, "--buffer must be at least 6 for agem, 2 for each task; got 5."),
    ],
)
def test_one_row_alone_is_refused_before_batches_are_normalised(experiment, strategy, options, said):
    normalised = {"backbone_options": {"width": 0.25, "normalisation": "batch"}, "scenario": "class"}
    with pytest.raises(UserError) as error:
        experiment(strategy, **normalised, **options).start()
    assert said in str(error.value)


@pytest.mark.parametrize(("strategy", "copies"), [("finetune", 0), ("si", 5), ("ewc", 2), ("packnet", 2.5), ("hat", 2)])
def test_memory_is_counted_in_copies_of_the_weights(learn, strategy, copies):
    """SI: omega, Omega, 2 c Omega, the anchors and the last gap; PackNet: owners of two bytes, masks, what is held."""
    run = learn(strategy, scenario="task", tasks=2, epochs=1, backbone_options={"units": 128})
    weights = sum(p.numel() * p.element_size() for p in run.model.parameters())
    assert run.metrics["strategy_bytes"] / weights == pytest.approx(copies, abs=0.05)
