"""Ours and Avalanche's on the strategies that work there: the same accuracy within noise, over three seeds."""

from __future__ import annotations

from importlib.util import find_spec
from statistics import mean

import pytest

SEEDS = range(3)
QUICK = ("er",)  # replay as everybody has it; the others are in make test-slow
PRUNING = {"packnet.prune": 0.5, "packnet.retrain": 0.4}
PAIRS = [
    # ours, its options, Avalanche's, its arguments, scenario, tolerance
    ("finetune", {}, "Naive", "", "class", 0.02),
    ("er", {}, "Replay", "", "class", 0.05),  # its buffer is filled at the end of a task, ours as images come
    ("ewc", {"ewc.strength": 10.0}, "EWC", "ewc_lambda=5", "task", 0.03),
    ("lwf", {"lwf.strength": 1.0}, "LwF", "alpha=1,temperature=2", "task", 0.02),
    # its importances are of a batch's mean output, smaller than the mean over images
    ("mas", {"mas.strength": 0.1}, "MAS", "lambda_reg=0.3,alpha=0.5", "task", 0.02),
    ("agem", {}, "AGEM", "", "task", 0.02),
    ("joint", {}, "Cumulative", "", "class", 0.02),
    # copies as in its authors' code
    ("er-ace", {"er-ace.replay_batch": 10, "er-ace.copies": True}, "ER_ACE", "batch_size_mem=10", "class", 0.03),
    ("derpp", {"derpp.alpha": 0.1, "derpp.beta": 0.5}, "DER", "alpha=0.1,beta=0.5", "class", 0.03),
    ("packnet", PRUNING, "PackNet", "post_prune_epochs=2,prune_proportion=0.5", "task", 0.03),
]


@pytest.mark.skipif(find_spec("avalanche") is None, reason="the extra avalanche is not installed")
@pytest.mark.parametrize(
    ("ours", "options", "theirs", "text", "scenario", "tolerance"),
    [pair if pair[0] in QUICK else pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS],
)
def test_agreement(learn, ours, options, theirs, text, scenario, tolerance):
    given = {"avalanche.arguments": text} if text else {}
    common = {"scenario": scenario, "buffer": 200}
    if ours == "packnet":  # Avalanche's asks for an optimizer without memory
        common |= {"optimizer": "sgd", "lr": 0.1}
    here = [learn(ours, strategies_options=options, seed=seed, **common).accuracy for seed in SEEDS]
    there = [learn(f"avalanche:{theirs}", strategies_options=given, seed=seed, **common).accuracy for seed in SEEDS]
    assert mean(here) == pytest.approx(mean(there), abs=tolerance)
